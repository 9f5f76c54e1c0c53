package cluster

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
)

const (
	exposureList = "/apis/podnet.dev/v1alpha1/namespaces/shop/exposures"
	serviceList  = "/api/v1/namespaces/shop/services"
)

func anExposure() *v1alpha1.Exposure {
	return &v1alpha1.Exposure{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "my-api", UID: "uid-1"},
		Spec:       v1alpha1.ExposureSpec{Peer: "u1", Local: "3000", Ports: []v1alpha1.ExposurePort{{Port: 80, Protocol: "tcp", RelayPort: 20000}, {Port: 3000, Protocol: "tcp", RelayPort: 20000}}},
		Status:     v1alpha1.ExposureStatus{Host: "podnet-x-1.podnet-system.svc.cluster.local"},
	}
}

func TestCreateExposure(t *testing.T) {
	f := newFakeAPI(t)
	var got v1alpha1.Exposure
	f.on["POST "+exposureList] = func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		have := got.DeepCopy()
		have.UID = "uid-7"
		reply(w, 201, have)
	}
	e := anExposure()
	have, err := f.client().CreateExposure(t.Context(), e)
	if err != nil || have.UID != "uid-7" {
		t.Fatalf("%+v, %v", have, err)
	}
	if got.Kind != "Exposure" || got.APIVersion != "podnet.dev/v1alpha1" || got.Spec.User != "alice" || got.Spec.Renew != 1 || len(got.Spec.Ports) != 2 {
		t.Errorf("wrote %+v", got)
	}
	if !reflect.DeepEqual(e, anExposure()) {
		t.Errorf("the caller's exposure has changed: %+v", e)
	}
}

func TestExposureRefused(t *testing.T) {
	f := newFakeAPI(t)
	c := f.client()
	status, cause, text := 0, metav1.StatusReasonForbidden, ""
	answer := func(w http.ResponseWriter, _ *http.Request) { refuse(w, status, cause, text) }
	for _, call := range []string{"POST " + exposureList, "PATCH " + exposureList + "/my-api", "DELETE " + exposureList + "/my-api", "GET " + exposureList, "GET " + exposureList + "/my-api"} {
		f.on[call] = answer
	}
	create := func() error { _, err := c.CreateExposure(t.Context(), anExposure()); return err }
	remove := func() error { return c.DeleteExposure(t.Context(), "shop", "my-api", "uid-1") }

	status, cause, text = 409, metav1.StatusReasonAlreadyExists, "exists"
	if err := create(); err != ErrExists {
		t.Errorf("a name that is taken: %v", err)
	}
	status, cause, text = 422, metav1.StatusReasonInvalid, "metadata.name is a Service's"
	explained(t, create(), localapi.CodeForbidden, "metadata.name is a Service's")
	status, cause, text = 403, metav1.StatusReasonForbidden, `exposures "my-api" is forbidden: ValidatingAdmissionPolicy 'podnet-exposure' denied request: PODNET-EXPOSE: not yours`
	explained(t, create(), localapi.CodeForbidden, "PODNET-EXPOSE: not yours")
	f.denied["create services shop"] = true
	for name, err := range map[string]error{"create": create(), "renew": c.RenewExposure(t.Context(), "shop", "my-api", 2), "delete": remove()} {
		t.Log(name)
		explained(t, err, localapi.CodeForbidden, "alice may not create services in namespace shop", "kubectl -n shop create rolebinding alice-podnet-edit --clusterrole=edit --user=alice")
	}
	f.denied["create exposures shop"] = true
	explained(t, create(), localapi.CodeForbidden, "create exposures in namespace shop", "--clusterrole=podnet-user")
	_, err := c.Exposures(t.Context(), "shop")
	explained(t, err, localapi.CodeForbidden, "list exposures in namespace shop", "--clusterrole=podnet-user")

	status, cause = 409, metav1.StatusReasonConflict
	if err := remove(); err != nil {
		t.Errorf("delete what is another one by now: %v", err)
	}
	status, cause = 404, metav1.StatusReasonNotFound
	if err := remove(); err != nil {
		t.Errorf("delete what is gone: %v", err)
	}
	if err := c.RenewExposure(t.Context(), "shop", "my-api", 2); err != ErrGone {
		t.Errorf("renew what is gone: %v", err)
	}
	if _, err := c.Exposure(t.Context(), "shop", "my-api"); err != ErrGone {
		t.Errorf("read what is gone: %v", err)
	}
	if all, err := c.Exposures(t.Context(), "shop"); len(all) != 0 || err != nil {
		t.Errorf("an old podnet has %d exposures, %v", len(all), err)
	}
	explained(t, create(), localapi.CodeNotInstalled, "cannot expose ports yet", "podnet install")
	f.on["GET /apis/podnet.dev/v1alpha1"] = func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, metav1.APIResourceList{APIResources: []metav1.APIResource{{Name: "exposures"}}})
	}
	explained(t, create(), localapi.CodeUsage, "no namespace shop")
}

// TestDeleteExactly: another object of the name stays.
func TestDeleteExactly(t *testing.T) {
	f := newFakeAPI(t)
	var got metav1.DeleteOptions
	f.on["DELETE "+exposureList+"/my-api"] = func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		reply(w, 200, metav1.Status{Status: metav1.StatusSuccess})
	}
	if err := f.client().DeleteExposure(t.Context(), "shop", "my-api", "uid-1"); err != nil {
		t.Fatal(err)
	}
	if got.Preconditions == nil || got.Preconditions.UID == nil || *got.Preconditions.UID != "uid-1" {
		t.Errorf("asked for %+v", got)
	}
}

// TestPointService: what becomes of the Service that is there, or is not.
func TestPointService(t *testing.T) {
	right := nameService(anExposure())
	before := right.DeepCopy()
	before.OwnerReferences[0].UID, before.Spec.ExternalName = "uid-0", "podnet-x-0.podnet-system.svc.cluster.local"
	foreign := right.DeepCopy()
	foreign.Labels = nil
	helm := before.DeepCopy()
	helm.OwnerReferences = nil
	for name, c := range map[string]struct {
		have   *corev1.Service
		denied string // method
		calls  string
		code   string
		says   string
	}{
		"none":                     {nil, "", "GET POST", "", ""},
		"it is right":              {right, "", "GET", "", ""},
		"of an exposure before":    {before, "", "GET PATCH", "", ""},
		"somebody's":               {foreign, "", "GET", localapi.CodeConflict, "there is a Service my-api in namespace shop already"},
		"labelled, and nobody's":   {helm, "", "GET", localapi.CodeConflict, "not podnet's"},
		"we may write, not look":   {nil, "get", "GET POST", "", ""},
		"and somebody has one":     {foreign, "get", "GET POST", localapi.CodeConflict, "not podnet's"},
		"we may not write":         {nil, "create", "GET POST", localapi.CodeForbidden, "alice may not create services in namespace shop"},
		"we may not change it now": {before, "patch", "GET PATCH", localapi.CodeForbidden, "alice may not patch services in namespace shop"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeAPI(t)
			client := f.client()
			f.calls = nil
			if c.denied != "" {
				f.denied[c.denied+" services shop"] = true
			}
			no := func(w http.ResponseWriter) { refuse(w, 403, metav1.StatusReasonForbidden, "no") }
			var wrote corev1.Service
			f.on["GET "+serviceList+"/my-api"] = func(w http.ResponseWriter, _ *http.Request) {
				switch {
				case c.denied == "get":
					no(w)
				case c.have == nil:
					refuse(w, 404, metav1.StatusReasonNotFound, "none")
				default:
					reply(w, 200, c.have)
				}
			}
			write := func(verb string, exists bool) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					switch {
					case c.denied == verb:
						no(w)
						return
					case exists:
						refuse(w, 409, metav1.StatusReasonAlreadyExists, "there is one")
						return
					}
					if err := json.NewDecoder(r.Body).Decode(&wrote); err != nil {
						t.Error(err)
					}
					reply(w, 200, wrote)
				}
			}
			f.on["POST "+serviceList] = write("create", c.have != nil)
			f.on["PATCH "+serviceList+"/my-api"] = write("patch", false)
			err := client.PointService(t.Context(), anExposure())
			if c.code == "" && err != nil {
				t.Fatal(err)
			}
			if c.code != "" {
				explained(t, err, c.code, c.says)
			}
			var verbs []string
			for _, call := range f.calls {
				if verb, path, _ := strings.Cut(call, " "); strings.HasPrefix(path, serviceList) {
					verbs = append(verbs, verb)
				}
			}
			if got := strings.Join(verbs, " "); got != c.calls {
				t.Errorf("calls %s, want %s", got, c.calls)
			}
			if c.code == "" && len(verbs) == 2 {
				o := wrote.OwnerReferences
				if wrote.Spec.Type != corev1.ServiceTypeExternalName || wrote.Spec.ExternalName != right.Spec.ExternalName || len(o) != 1 || o[0].UID != "uid-1" || o[0].BlockOwnerDeletion != nil ||
					len(wrote.Spec.Ports) != 2 || wrote.Spec.Ports[1].Name != "tcp-3000" || wrote.Spec.Ports[1].Protocol != corev1.ProtocolTCP {
					t.Errorf("wrote %+v", wrote)
				}
				if verbs[1] == "POST" && wrote.Labels["app.kubernetes.io/managed-by"] != "podnet" {
					t.Errorf("labels %v", wrote.Labels)
				}
			}
		})
	}
}

func TestNameFreeAndDropService(t *testing.T) {
	ours := nameService(anExposure())
	ours.UID = "service"
	before := ours.DeepCopy()
	before.OwnerReferences[0].UID = "uid-0"
	foreign := ours.DeepCopy()
	foreign.OwnerReferences = nil
	for name, c := range map[string]struct {
		have    *corev1.Service
		free    bool
		dropped bool
	}{
		"none": {nil, true, false}, "ours": {ours, true, true}, "of an exposure before": {before, true, false}, "somebody's": {foreign, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeAPI(t)
			dropped := false
			f.on["GET "+serviceList+"/my-api"] = func(w http.ResponseWriter, _ *http.Request) {
				if c.have == nil {
					refuse(w, 404, metav1.StatusReasonNotFound, "none")
					return
				}
				reply(w, 200, c.have)
			}
			f.on["DELETE "+serviceList+"/my-api"] = func(w http.ResponseWriter, _ *http.Request) {
				dropped = true
				reply(w, 200, metav1.Status{Status: metav1.StatusSuccess})
			}
			client := f.client()
			if err := client.NameFree(t.Context(), "shop", "my-api"); (err == nil) != c.free {
				t.Errorf("free: %v", err)
			} else if err != nil {
				explained(t, err, localapi.CodeConflict, "not podnet's", "--as")
			}
			if err := client.DropService(t.Context(), anExposure()); err != nil || dropped != c.dropped {
				t.Errorf("dropped %v, %v", dropped, err)
			}
		})
	}
}
