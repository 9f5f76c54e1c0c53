package main

var supply = section{"Supply chain", []promise{
	{
		number:  59,
		says:    "Two builds give the same bytes, a release has signatures and a bill of materials, and no known weakness can be reached in it.",
		shown:   both(short("cmd/packages", "TestReleaseIsReproducible", "TestReleaseIsWhole", "TestBill"), short("deploy/image/oci", "TestSameBinarySameBytes", "TestOtherBinaryOtherDigest")),
		missing: "two hosts, signatures, and govulncheck",
	},
}}
