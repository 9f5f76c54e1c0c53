package main

var gateway = section{"Reliability of the gateway", []promise{
	{
		number: 33,
		says:   "After the gateway's pod is deleted by force, new connections work within 10 s of a ready one, and open flows end within 15 s.",
		shown:  long("e2e", "TestSingleGatewayIsKilled", "TestOneOfTwoGatewaysGoes"),
		limits: []string{"at most 10 s", "at most 15 s"},
	},
	{
		number:  34,
		says:    "With the API server stopped for 30 minutes no open flow is lost and newcomers are told so; leases that stand still end after 60 minutes.",
		shown:   both(long("e2e", "TestAPIServerAway"), short("gateway", "TestControlPlaneAway"), short("gateway/guard", "TestControlPlaneThatGoesAway"), short("gateway/lease", "TestFrozen")),
		missing: "30 minutes at a real cluster: it is 5 there; the end after 60 minutes is shown with a clock of the test's",
	},
	{
		number:  35,
		says:    "50 peers that come and go for 24 hours leave the gateway's memory within 5 % and its goroutines within 20 of what they were.",
		shown:   both(long("e2e", "TestFiftyLaptops", "TestSoak"), short("internal/resident", "TestFollow"), short("e2e/crowd", "TestCrowd")),
		missing: "24 hours: two crowds of fifty laptops, the second of which may leave 10 % more memory, and half an hour of a laptop that stays while another comes and goes",
	},
	{
		number: 36,
		says:   "20,000 flows at once take at most 512 MiB; of 40,000 some are refused, nothing is killed for memory and others wait at most 2 times as long.",
		shown:  both(long("gateway", "TestManyFlows", "TestOutOfMemory"), short("internal/forward", "TestConnectionsOfAUser", "TestNoMemory", "TestShed"), short("e2e", "TestThousandFlows")),
		limits: []string{"at most 512 MiB", "at most 2 times"},
	},
	{
		number: 37,
		says:   "50,000 SYNs a second of one peer leave another's connects below 50 ms (99 of 100), and are forgotten within 5 s.",
		shown:  short("gateway", "TestSYNFlood"),
		limits: []string{"at most 50 ms", "at most 5 s"},
	},
	{
		number: 38,
		says:   "With 10,000 Services and 50,000 endpoints the gateway is ready within 20 s in 300 MiB, and a change shows in names and policy within 1 s.",
		shown:  both(long("gateway", "TestLargeCluster"), short("gateway/world", "TestOneChangeInALargeCluster"), short("e2e/naming", "TestChangesShowAtOnce")),
		limits: []string{"at most 20 s", "at most 300 MiB", "at most 1 s"},
	},
	{
		number: 39,
		says:   "On a path that swallows packets above 1280 bytes without a word, 100 MB in both directions arrive and nothing stands still for more than 3 s, also when it begins to in the middle of a session.",
		shown:  long("e2e", "TestSmallPackets"),
		limits: []string{"at most 3 s"},
	},
	{
		number: 40,
		says:   "On a line with 2 % loss and a round trip of 150 ms the tunnel by UDP has at least 70 % of plain TCP's speed, and by the API server no connection breaks.",
		shown:  long("e2e", "TestLongLossyLine"),
		limits: []string{"at least 70 %"},
	},
	{
		number: 41,
		says:   "120 s after a laptop was unplugged the gateway has none of its flows.",
		shown:  both(long("e2e", "TestUnpluggedLaptop"), short("internal/forward", "TestUnpluggedLaptopLeavesNothing")),
		limits: []string{"at most 120 s"},
	},
	{
		number: 42,
		says:   "The gateway runs under Pod Security restricted: read-only root, no capability, not root, RuntimeDefault seccomp, a projected token of an hour.",
		shown:  both(short("e2e", "TestGatewayHasNoPrivileges"), short("deploy", "TestRenderedText")),
	},
	{
		number: 43,
		says:   "5,000 questions a second of one peer leave another's answers below 20 ms (99 of 100) and memory within 32 MiB; without the cluster's DNS server its names still resolve.",
		shown:  both(short("gateway", "TestFloodOfOnePeerLeavesOthersAlone"), short("dnsproxy/kube", "TestClusterServerThatIsDownCostsLittle", "TestDeadZoneIsOnePeersAffair"), short("dnsproxy", "TestPromptAnswersPassSlowOnes")),
		limits: []string{"at most 20 ms", "at most 32 MiB"},
	},
	{
		number: 60,
		says: "A user has limits, with all devices together: connections, new ones a second, bytes a second. At one the user is told, " +
			"on each device; the defaults are in docs/threat-model.md.",
		shown: both(short("gateway", "TestUserAtHisLimitIsTold"), short("internal/forward", "TestConnectionsOfAUser", "TestRateOfAUser", "TestBytesOfAUser")),
	},
	{
		number: 61,
		says:   "The gateway's log and Kubernetes Events say who enrolled, was refused and ended, and steers what; a flood of refusals is a few Events.",
		shown:  both(short("gateway/audit", "TestAudit", "TestEventsAreFew"), short("gateway", "TestEventsOfAPeer")),
	},
}}
