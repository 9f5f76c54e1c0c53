package main

var isolation = section{"Isolation of the data plane", []promise{
	{
		number: 13,
		says: "Who may reach one namespace gets no packet to another's pods and Services, the kubelet, cloud metadata, the API server, " +
			"the gateway's own ports and loopback, or other peers.",
		shown: both(short("gateway", "TestNoPacketLeaves", "TestLaptopReachesShopAndNothingElse"), short("gateway/policy", "TestWhoReachesWhat", "TestAgainstModel"), short("e2e", "TestDefaultDeny", "TestNamespaceWithoutPermission")),
	},
	{
		number: 14,
		says:   "A Service whose endpoints were edited to lead to another namespace, a node or the API server is refused.",
		shown:  short("gateway/policy", "TestHandEditedEndpoints", "TestControllersLabelByHand"),
	},
	{
		number: 15,
		says:   "When a pod's address moves to another namespace, its open flows end within 1 s and new ones are refused at once.",
		shown:  both(short("gateway", "TestAddressMovesUnderAFlow"), short("gateway/policy", "TestAddressChangesHands"), short("internal/forward", "TestRecheckEndsWhatIsNoLongerAllowed")),
		limits: []string{"at most 1 s"},
	},
	{
		number: 16,
		says:   "A packet with an inner source that is not its peer's is dropped and counted.",
		shown:  both(short("gateway", "TestSpoofedSource"), short("internal/tunnel", "TestSpoofedSourceIsCounted")),
	},
	{
		number: 17,
		says:   "To a pod that scans them, the gateway and the agent answer on their documented ports only, and control ports refuse.",
		shown:  both(short("e2e", "TestScan", "TestDefaultDeny"), short("gateway/agent/redirect", "TestAgentPortIsNoWayAround")),
	},
	{
		number: 18,
		says:   "Datagrams of strangers, and garbage, get no byte in reply but WireGuard's cookie, which is shorter than what it answers.",
		shown:  both(short("internal/transport", "TestStrangersHandshakesAreNotAnswered", "TestGarbageDatagramsAreNotAnswered", "TestStrangersProbesLeaveNothing", "TestGarbageDatagramsAreNotShownToTheDevice"), short("gateway/meet", "TestOnlyTheAdmittedMayProbe"), short("e2e", "TestGatewayShrugsOffGarbage")),
	},
	{
		number: 19,
		says:   "10,000 handshakes a second of one client by the port-forward delay another's by less than 500 ms.",
		shown:  short("internal/transport", "TestHandshakeFloodDelaysNobody"),
		limits: []string{"at most 500 ms"},
	},
	{
		number: 20,
		says: "Names of namespaces that are not open do not exist. Answers that lead to the laptop itself, link-local, " +
			"unspecified addresses or the laptop's own networks are dropped.",
		shown: both(short("dnsproxy/kube", "TestStrangerSeesNothing", "TestHiddenNamesNeverReachTheClusterServer", "TestSpecification"), short("client", "TestOnLinkAddressesAreNoClusterAnswers"), short("dnsproxy", "TestForbiddenAnswers", "TestSplit", "TestNothingLeftIsNoData")),
	},
	{
		number: 21,
		says: "With virtual addresses neither a pod's own address can be reached nor a virtual one that the session has not given out, so that a web page that knows " +
			"the address (rebinding) gets no byte.",
		shown:   both(short("e2e", "TestVirtualAddresses", "TestRebinding"), short("client/given", "TestGuessesAreRefused", "TestAgainstModel"), short("client", "TestGuessedAddressIsRefused"), short("dnsproxy", "TestGivenAddresses")),
		missing: "a page that knows a name as well: it can have the browser ask for it, and then reach that address under its own. Nor is it kept from the kernel's device (--device kernel), whose packets podnet does not see",
	},
}}
