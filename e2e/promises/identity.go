package main

var identity = section{"Identity and authorisation", []promise{
	{
		number: 1,
		says:   "Who enrols in somebody else's name is refused by the API server, with the reason PODNET-OWNER.",
		shown:  both(short("e2e/admission", "TestWhoMayDoWhat"), short("e2e", "TestForeignPeerIsRefused")),
	},
	{
		number: 2,
		says: "Nobody renews, changes or deletes another's Peer, Access, SteeringRule or Exposure. " +
			"Who holds the verb `revoke` may delete them, and nothing else.",
		shown: short("e2e/admission", "TestWhoMayDoWhat", "TestWhoMaySteer", "TestWhoMayExpose"),
	},
	{
		number: 3,
		says:   "A Peer's key, user and lease never change, `renew` never goes down, and only the gateway writes the status.",
		shown:  short("e2e/admission", "TestWhoMayDoWhat"),
	},
	{
		number: 4,
		says: "Without the right to `create pods/portforward` in a namespace it cannot be opened, " +
			"whatever rights somebody has on podnet's own objects.",
		shown: both(short("e2e/admission", "TestWhoMayDoWhat"), short("e2e", "TestNamespaceWithoutPermission")),
	},
	{
		number: 5,
		says: "Once the RoleBinding is gone, traffic to that namespace ends within one lease (300 s by default) " +
			"although nobody touches podnet's objects. Shown with a lease of 60 s.",
		shown:  both(short("gateway", "TestRoleBindingGone"), short("e2e", "TestNamespaceWithoutPermission")),
		limits: []string{"at most 60 s"},
	},
	{
		number: 6,
		says:   "A deleted Peer's packets stop within 2 s, in 99 of 100 trials.",
		shown:  both(long("gateway", "TestDeletedPeersStopAtOnce"), short("e2e", "TestDeletedPeerIsCut", "TestAdmin")),
		limits: []string{"at most 2 s"},
	},
	{
		number: 7,
		says:   "Who stops renewing is out when the lease is over, at most 5 s before or after; a killed pipeline within 125 s.",
		shown:  both(short("gateway", "TestLeaseEndsInTime"), long("e2e", "TestKilledJob")),
		limits: []string{"at most 5 s", "at most 125 s"},
	},
	{
		number: 8,
		says: "60 s after an admission policy or its binding was removed nobody new is admitted any more; " +
			"60 s after it is back somebody is.",
		shown:  both(short("gateway", "TestNobodyIsAdmittedWithoutPolicies", "TestMissingPolicyIsNoticed"), short("gateway/guard", "TestPoliciesComeAndGo", "TestEachPolicyIsTried")),
		limits: []string{"at most 60 s"},
	},
	{
		number: 9,
		says: "Kubeconfigs with a client certificate, a ServiceAccount's token, an exec plugin and OIDC all work, " +
			"and no Authorization header nor a piece of a token is on any connection to podnet's pods.",
		shown: both(short("e2e", "TestCredentialsOfAllKinds"), short("e2e/issuer", "TestAnAPIServerTrustsIt"), short("e2e/wiretap", "TestWhatPassesIsHeard")),
	},
	{
		number: 10,
		says: "What the gateway's ServiceAccount may do, by the API server's own word, is a reviewed list " +
			"without Secrets, exec, impersonation, ephemeral containers or a star.",
		shown: both(short("deploy", "TestVerbs"), short("e2e/admission", "TestWhatTheGatewayMayDo", "TestExecInTheGateway")),
	},
	{
		number: 11,
		says:   "The audit log alone tells who had access to which namespace when, give or take a lease.",
		shown:  both(short("e2e/audit", "TestWhoHadAccess"), short("e2e", "TestCredentialsOfAllKinds")),
	},
	{
		number: 12,
		says:   "1,000 peers with 3,000 Accesses cost at most 45 writes a second to the API server and 0.2 of a core in the gateway.",
		shown:  long("gateway", "TestThousandPeers"),
		limits: []string{"at most 45 /s", "at most 0.2 cores"},
	},
	{
		number: 62,
		says: "Who may `edit` one namespace and nothing else installs podnet there, connects, and reaches that namespace and nothing else; " +
			"that gateway has no credentials at all.",
		shown: both(short("e2e", "TestNamespaceMode"), short("gateway/namespaced", "TestOneNamespaceAndNothingElse"), short("deploy", "TestRenderedForOneNamespace"), short("dnsproxy/claims", "TestWhoseAddress")),
	},
}}
