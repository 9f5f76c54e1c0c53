package main

var supply = section{"Supply chain", []promise{
	{
		number: 59,
		says:   "Two builds give the same bytes, a release has signatures and a bill of materials, and no known weakness can be reached in it.",
		shown: both(long("cmd/packages", "TestOtherComputerSameBytes"), short("cmd/packages", "TestReleaseIsReproducible", "TestReleaseIsWhole", "TestBill", "TestSignature", "TestUnsignedReleaseSaysSo", "TestKnownWeakness"),
			short("deploy/image/oci", "TestSameBinarySameBytes", "TestOtherBinaryOtherDigest")),
		missing: "that no known weakness can be reached: `make release` asks govulncheck and goes no further without its word, but the database is on the internet, and nobody has looked at it from here",
		instead: "there is one machine: the other one is another user, host name, place, file system and so on of it, all but another kernel and another time of day",
	},
}}
