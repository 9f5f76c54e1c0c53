package keep

import (
	"encoding/json"
	"testing"
	"time"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/exposure"
)

// TestWhatAnExposureIsTold: its status is written when something is new.
func TestWhatAnExposureIsTold(t *testing.T) {
	const lease, host = 300 * time.Second, "podnet-x-1.podnet-system.svc.cluster.local"
	now := time.Unix(1_700_000_000, 0)
	good := exposure.Verdict{Ready: true, Reason: podnet.ReasonAdmitted, Message: "It leads.", Renew: 1, Expires: now.Add(lease)}
	o := &podnet.Exposure{}
	tell := func(what string, v exposure.Verdict, host string, want bool) {
		t.Helper()
		patch := patch(now, o, v, host, lease)
		if (patch != nil) != want {
			t.Fatalf("%s: written %v", what, patch)
		}
		if patch == nil {
			return
		}
		text, err := json.Marshal(patch.Object["status"])
		if err != nil {
			t.Fatal(err)
		}
		o.Status = podnet.ExposureStatus{}
		if err := json.Unmarshal(text, &o.Status); err != nil {
			t.Fatal(err)
		}
	}
	tell("its Service is not there", good, "", false)
	tell("its Service is there", good, host, true)
	if o.Status.Host != host || o.Status.ExpiresAt.Unix() != good.Expires.Unix() || o.Status.Conditions[0].Reason != podnet.ReasonAdmitted {
		t.Errorf("status %+v", o.Status)
	}
	tell("nothing is new", good, host, false)
	tell("its Service was deleted", good, "", false)
	renewed := good
	renewed.Renew, renewed.Expires = 2, good.Expires.Add(lease/3)
	tell("renewed once", renewed, host, false)
	renewed.Renew, renewed.Expires = 3, good.Expires.Add(2*lease/3)
	tell("renewed twice", renewed, host, true)
	if o.Status.ObservedRenew != 3 || o.Status.Host != host {
		t.Errorf("status %+v", o.Status)
	}
	over := exposure.Verdict{Reason: podnet.ReasonExpired, Message: "Over.", Renew: 3}
	tell("it is over", over, "", true)
	if o.Status.Host != host || o.Status.ExpiresAt == nil {
		t.Errorf("status %+v", o.Status)
	}
	tell("it stays over", over, "", false)
	over.Renew = 4
	tell("renewed too late", over, "", true)
}
