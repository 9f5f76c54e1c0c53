package main

var steering = section{"Steering", []promise{
	{
		number: 44,
		says:   "Whatever ends an agent by force, requests reach the app again within 5 s, and nothing redirects after 6 s.",
		shown:  both(long("e2e", "TestSteeringUndoesItself"), short("gateway/agent/redirect", "TestKilledAgent", "TestSilentAgentLosesPort"), short("gateway/agent", "TestKilledWorkerIsReplaced")),
		limits: []string{"at most 5 s", "at most 6 s"},
	},
	{
		number: 45,
		says:   "10,000 refreshes of the redirection under load are never seen: no connection goes to the wrong side.",
		shown:  both(long("gateway/agent/redirect", "TestRefreshIsSeamless"), short("gateway/agent/serve", "TestRulesComeAndGoUnseen")),
	},
	{
		number: 46,
		says:   "When the laptop falls asleep the app serves again within 4 s of its last sign of life.",
		shown:  both(long("e2e", "TestSteeringUndoesItself"), short("gateway/agent", "TestPodIsSteeredAndServesAgain")),
		limits: []string{"at most 4 s"},
	},
	{
		number: 47,
		says:   "What no rule takes passes byte for byte, whatever protocol, and at most 0.3 ms later in the middle, 1 ms at the 99th percentile.",
		shown:  both(short("e2e", "TestOddHTTP", "TestProgramsThroughASteeredPort", "TestSteeringCosts"), short("gateway/agent/serve", "TestPassIsExact", "TestMixedRequestsAreToldApart"), long("gateway/agent/serve", "TestMixIsExact"), short("internal/steer/http1", "TestSaneRequestsArePassedAsTheyAre", "TestResponsesArePassedAsTheyAre")),
		limits: []string{"at most 0.3 ms", "at most 1 ms"},
	},
	{
		number: 48,
		says:   "A request that matches is taken and the next one of the same connection, which does not, is the app's; so with HTTP/2's streams.",
		shown:  both(short("internal/steer/http1", "TestEachRequestGoesWhereItBelongs", "TestPipelineKeepsItsOrder", "TestAnyMix"), short("internal/steer/http2", "TestEachRequestIsDecided", "TestManyStreamsAtOnce"), short("gateway/agent/serve", "TestRequestsAreDecided", "TestStreamsAreDecided"), short("e2e", "TestSteerByHeader")),
	},
	{
		number: 49,
		says:   "Of requests that two programs could read in two ways none is taken and none is changed; the app's answers are as without an agent.",
		shown:  both(short("e2e", "TestOddHTTP"), short("internal/steer/http1", "TestDoubt", "TestOddRequestsAreTheApps", "TestOddBodiesStayTheApps"), short("gateway/agent/serve", "TestOddBehindPlainIsTheApps")),
	},
	{
		number: 50,
		says:   "Probes by HTTP, gRPC and TCP tell of the app what they tell without an agent, also when it is dead.",
		shown:  both(short("e2e", "TestProbesReachTheApp"), short("gateway/agent/serve", "TestProbesAreTheApps", "TestDeadAppRefuses")),
	},
	{
		number: 51,
		says: "Who may not patch that pod's ephemeral containers makes no rule for it. " +
			"(A label of the namespace that opts in is not asked for: that right is what opts in.)",
		shown: both(short("e2e/admission", "TestWhoMaySteer"), short("e2e", "TestTwoUsersSteer")),
	},
	{
		number: 52,
		says:   "In a namespace whose Pod Security forbids agents the refusal is shown as it came, another way is offered, and nothing is left.",
		shown:  both(short("e2e", "TestSteerByService"), short("client/cluster", "TestInjectRefusedVerbatim"), short("client/steering", "TestServiceThatCannotBeSteered")),
	},
	{
		number: 53,
		says:   "Of two developers with different headers on one pod each gets only theirs; who asks for the same is told whose it is; and the one's end costs the other no request.",
		shown:  both(long("e2e", "TestTwoUsersSteer"), short("internal/steer", "TestClash", "TestClashIsTrue")),
	},
	{
		number: 54,
		says:   "A mirror's laptop that hardly reads costs the app at most 1 ms at the 99th percentile and the agent at most 64 MiB; what is left out is counted.",
		shown:  both(short("e2e", "TestSteeringCosts"), short("gateway/agent/serve", "TestSlowMirrorIsDropped", "TestCopiesOfRequestsShareRoom"), short("internal/steer/http1", "TestSlowMirror"), short("internal/steer/http2", "TestSlowMirrorCostsTheAppNothing")),
		limits: []string{"at most 1 ms", "at most 64 MiB"},
	},
	{
		number:  55,
		says:    "Beside Istio with a sidecar or ambient, and Linkerd, taking by header works, their encryption stays, and the end leaves all as it was.",
		shown:   short("gateway/agent/redirect", "TestMeshKeepsItsPlace", "TestNothingElseChanges"),
		missing: "a real mesh",
		instead: "no mesh can be had on this machine: a redirection as a sidecar's, at its hook and priority and with a group of its own, is put beside ours in a pod's network",
	},
	{
		number: 56,
		says:   "No byte is taken 2 s after an administrator deleted the rule, and the rule is gone 60 s after its pod.",
		shown:  both(long("e2e", "TestTwoUsersSteer"), short("e2e", "TestSteerByHeader", "TestSteerByService"), short("client/steering", "TestRevoked"), short("e2e/admission", "TestWhoMaySteer")),
		limits: []string{"at most 2 s", "at most 60 s"},
	},
	{
		number: 57,
		says:   "The agent never changes a foreign table nor a sysctl: before, during and after, the rules beside its own are the same.",
		shown:  both(short("gateway/agent/redirect", "TestNothingElseChanges", "TestNobodyElseRemovesTheTable"), short("e2e", "TestSteeringUndoesItself")),
	},
	{
		number: 58,
		says: "What lets an agent reach a laptop serves nobody else: not from another pod, not by another key, not once the rule is gone. " +
			"(There is no capability that could be stolen, used twice or too late: an agent is known by its WireGuard key and its pod.)",
		shown: both(short("gateway/steering", "TestWhoIsNotWelcome", "TestAnAgentOfAnotherPod", "TestALaptopIsNoAgent"), short("gateway", "TestAgentFromElsewhere"), short("gateway/steering/keep", "TestOnlyTiesLetPacketsPass"), short("client/relay", "TestOnlyAgentsOfTheRuleGetThrough", "TestRuleThatGoesTakesItsConnections", "TestUDPEndsWithTheRule")),
	},
}}
