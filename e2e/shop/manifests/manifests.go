// Package manifests is the sample shop as Kubernetes objects.
package manifests

import _ "embed"

// YAML is the shop: namespaces shop and pay and what runs in them. The image
// podnet.dev/shop:lab must be on every node already.
//
//go:embed shop.yaml
var YAML []byte
