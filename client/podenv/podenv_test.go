package podenv

import (
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var yes = true

func configKey(name, key string, optional *bool) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key, Optional: optional}}
}

func secretKey(name, key string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key}}
}

func field(path string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
}

func share(name, divisor string) *corev1.EnvVarSource {
	s := &corev1.ResourceFieldSelector{Resource: name}
	if divisor != "" {
		s.Divisor = resource.MustParse(divisor)
	}
	return &corev1.EnvVarSource{ResourceFieldRef: s}
}

func container() *corev1.Container {
	return &corev1.Container{Name: "web",
		Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("1500m"), "memory": resource.MustParse("64Mi")}},
		EnvFrom: []corev1.EnvFromSource{
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}},
			{Prefix: "DB_", SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "db"}}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "gone"}, Optional: &yes}},
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "missing"}}},
		},
		Env: []corev1.EnvVar{
			{Name: "COLOUR", Value: "red"}, // over the ConfigMap's
			{Name: "URL", Value: "http://$(DB_host):$(PORT)/$$(COLOUR) 5$ $(open"},
			{Name: "ONE", ValueFrom: configKey("settings", "one", nil)},
			{Name: "NONE", ValueFrom: configKey("settings", "none", &yes)},
			{Name: "LOST", ValueFrom: configKey("settings", "none", nil)},
			{Name: "TOKEN", ValueFrom: secretKey("closed", "token")},
			{Name: "POD", ValueFrom: field("metadata.name")},
			{Name: "NS", ValueFrom: field("metadata.namespace")},
			{Name: "TIER", ValueFrom: field("metadata.labels['tier']")},
			{Name: "SA", ValueFrom: field("spec.serviceAccountName")},
			{Name: "IPS", ValueFrom: field("status.podIPs")},
			{Name: "CPUS", ValueFrom: share("limits.cpu", "")},
			{Name: "MILLIS", ValueFrom: share("limits.cpu", "1m")},
			{Name: "MEMORY", ValueFrom: share("limits.memory", "1Mi")},
			{Name: "ASKED", ValueFrom: share("requests.memory", "")},
		},
	}
}

func source() Source {
	return Source{
		Meta:       metav1.ObjectMeta{Namespace: "shop", Labels: map[string]string{"tier": "front"}},
		ConfigMaps: map[string]map[string][]byte{"settings": {"COLOUR": []byte("blue"), "one": []byte("1"), "a=b": []byte("no name")}},
		Secrets:    map[string]map[string][]byte{"db": {"host": []byte("db.shop"), "key": []byte("a\x00b")}},
		Denied:     map[Ref]error{{true, "closed"}: errors.New("you may not read Secret closed")},
	}
}

func TestResolve(t *testing.T) {
	c := container()
	if got, want := Needs(c), []Ref{{false, "settings"}, {true, "db"}, {true, "gone"}, {false, "missing"}, {true, "closed"}}; !slices.Equal(got, want) {
		t.Errorf("needs %v", got)
	}
	vars, unknown := Resolve(source(), c)
	want := []string{"COLOUR=red", "one=1", "DB_host=db.shop", "URL=http://db.shop:$(PORT)/$(COLOUR) 5$ $(open", "ONE=1", "NS=shop", "TIER=front", "SA=default",
		"CPUS=2", "MILLIS=1500", "MEMORY=64"}
	if !slices.Equal(vars, want) {
		t.Errorf("got  %q\nwant %q", vars, want)
	}
	for _, say := range []string{"all of ConfigMap missing: there is no", "LOST: ConfigMap settings has no key none", "TOKEN: you may not read Secret closed",
		"POD: metadata.name is a pod's", "IPS: status.podIPs is a pod's", "ASKED: requests.memory is not set", "DB_key: its value has a byte 0"} {
		if !strings.Contains(strings.Join(unknown, "\n"), say) {
			t.Errorf("%q is not among %q", say, unknown)
		}
	}
	if len(unknown) != 7 {
		t.Errorf("unknown: %q", unknown)
	}

	s := source()
	s.Pod, s.Meta.Name = true, "web-0"
	s.Status = corev1.PodStatus{PodIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}}}
	vars, _ = Resolve(s, c)
	for _, v := range []string{"POD=web-0", "IPS=10.0.0.1,fd00::1"} {
		if !slices.Contains(vars, v) {
			t.Errorf("%s is not in %q", v, vars)
		}
	}
}

func TestFind(t *testing.T) {
	spec := corev1.PodSpec{Containers: []corev1.Container{{Name: "proxy"}, {Name: "web"}}}
	chosen := metav1.ObjectMeta{Annotations: map[string]string{DefaultContainer: "web"}}
	for _, c := range []struct {
		meta metav1.ObjectMeta
		name string
		want string
	}{{metav1.ObjectMeta{}, "", "proxy"}, {chosen, "", "web"}, {chosen, "proxy", "proxy"}, {chosen, "db", ""}} {
		got, names := Find(spec, c.meta, c.name)
		if got == nil && c.want != "" || got != nil && got.Name != c.want || len(names) != 2 {
			t.Errorf("%q: %v of %v", c.name, got, names)
		}
	}
}
