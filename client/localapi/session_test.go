package localapi

import (
	"strings"
	"testing"
)

func TestAlias(t *testing.T) {
	for name, want := range map[string]string{
		"blue": "blue", "Blue": "blue", "gke_shop-1_europe-west1_prod": "gke-shop-1-europe-west1-prod",
		"arn:aws:eks:eu-west-1:123456789012:cluster/pay": "arn-aws-eks-eu-west-1-123456789012-cluster-pay",
		"https://10.0.0.1:6443":                          "https-10-0-0-1-6443", "admin@lab.": "admin-lab", "": "session", "...": "session",
		strings.Repeat("a", 62) + ".b": strings.Repeat("a", 62),
		"käse":                         "k-se",
	} {
		if got := Alias(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
