package main

// elsewhere is why promises about other systems are shown by halves.
const elsewhere = "macOS and Windows do not run here: the same Go code is built and vetted for both (`make cross`)"

var laptop = section{"Laptop", []promise{
	{
		number:  22,
		says:    "Another user of the laptop can connect neither to the daemon's socket nor to podnet-helper's session.",
		shown:   both(short("client/daemon", "TestOtherUsersAreRefused"), short("cmd/podnet-helper", "TestStrangersMayLook", "TestOneUserAtATime"), short("internal/peercred", "TestOfOurselves")),
		instead: elsewhere + ", where the kernel's word on the peer comes from other calls",
	},
	{
		number: 23,
		says:   "podnet-helper refuses a default route, halves of it, the laptop's own networks, loopback, top-level domains and lists without end, and has then changed nothing.",
		shown:  both(short("client/helper/wire", "TestBadWishesAreRefused"), short("client/router", "TestUnreasonableRoutes", "TestCollision"), short("client/helper/serve", "TestRefusedChangesNothing"), short("cmd/podnet-helper", "TestBadWishesChangeNothing")),
	},
	{
		number: 24,
		says:   "podnet-helper links no Kubernetes, no HTTP and no DNS library, and has at most 1,500 lines of its own.",
		shown:  short("internal/layout", "TestTheHelperIsSmall", "TestImports"),
	},
	{
		number: 25,
		says: "kill -9 at 200 random moments: of the daemon, and routes, rules and DNS are as before within 2 s; of podnet-helper within 5 s; " +
			"of everything at once at the next start.",
		shown:  both(short("e2e", "TestAnOrdinaryUser"), long("e2e", "TestKilledDaemonRestores", "TestHelperKilledAtRandom", "TestKilledAtRandom")),
		limits: []string{"at most 2 s", "at most 5 s"},
	},
	{
		number:  26,
		says:    "After the power is cut at 50 random moments, names resolve within 10 s of the next boot.",
		shown:   both(long("cmd/podnet-helper", "TestPowerCut"), short("client/osdns", "TestKilledAtAnyMoment", "TestLostOrDamagedJournal"), short("deploy/systemd", "TestUnitsAreWhatSystemdReads")),
		limits:  []string{"at most 10 s"},
		instead: "a machine of its own that loses its power: its disks' file systems (ext4) are cut off, so that what was not written is lost, all that runs is killed, and what the boot's unit runs is run",
	},
	{
		number: 27,
		says:   "No local listener answers a request with a foreign Origin or Host.",
		shown:  both(short("client/daemon", "TestWebPagesAreRefused"), short("client/ui", "TestOthersAreKeptOut", "TestAddressIsGoodOnce"), short("internal/httpjson", "TestLocalRefusesWebPages"), short("e2e", "TestDaemonThatStartsWithTheLogin")),
	},
	{
		number: 28,
		says:   "After a session no private key, token or kubeconfig text is in any file, log, core or command line.",
		shown: both(short("e2e", "TestCredentialsOfAllKinds"), short("internal/key", "TestPrivateNeverPrints"), short("internal/probe", "TestKeyDoesNotPrintItself"), short("internal/tunnel", "TestLogsAreDebugAndKeepKeys"), short("internal/wgconf", "TestErrorsKeepSecrets"),
			short("internal/nocore", "TestNoCore", "TestChildrenAreAsTheUserWants"), short("cmd/podnet", "TestDaemonLeavesNoCore"), short("cmd/podnet-gateway", "TestGatewayLeavesNoCore"), short("cmd/podnet-agent", "TestAgentLeavesNoCore"), short("cmd/podnet-helper", "TestHelperLeavesNoCore")),
		instead: elsewhere + ". Of cores, macOS is told a limit of 0, and Windows keeps none unless an administrator has asked for them",
	},
	{
		number: 29,
		says: "Where the laptop's own network or a docker0 has the cluster's addresses, podnet works by virtual ones and the hosts there stay in reach; " +
			"with the cluster's own addresses it refuses and names the interface.",
		shown: short("e2e", "TestHomeNetworkIsThePodNetwork", "TestCollisionIsRefused", "TestCarriedHome"),
	},
	{
		number:  30,
		says:    "After a long sleep podnet is usable within 10 s by itself, or says clearly within 10 s that a login is needed.",
		shown:   both(long("e2e", "TestSleepingLaptop"), short("client", "TestPermissionIsGoneAfterANight", "TestLeaseEndsWhileNobodyCanRenew"), short("client/netwatch", "TestUptimeGoesOn")),
		limits:  []string{"at most 10 s"},
		missing: "8 hours: the sleep is 10 minutes, ten times the lease, and by freezing the daemon",
	},
	{
		number: 31,
		says:   "When the laptop moves to another network an open connection survives, and stands still for at most 5 s.",
		shown:  both(long("e2e", "TestConnectionsOutlivePaths"), short("client", "TestLaptopMovesToAnotherNetwork")),
		limits: []string{"at most 5 s"},
	},
	{
		number: 32,
		says:   "With the wall clock a day back or ten years ahead, podnet connects within 10 s.",
		shown:  both(short("e2e/guest", "TestKernelWireGuard"), short("client", "TestClockWasSetBack")),
		instead: "the laptop is an emulated machine with a kernel, a clock and a WireGuard of its own; the API server is a fake without TLS, " +
			"whose certificate a laptop judges by its clock, as it does for kubectl",
		limits: []string{"at most 10 s"},
	},
}}
