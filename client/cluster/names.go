package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxNames is how many names Names asks for. A shell lists no more anyhow.
const maxNames = "500"

// groups are the resources whose names may be listed, by the path of their group.
var groups = map[string]string{
	"services": "/api/v1", "pods": "/api/v1",
	"deployments": "/apis/apps/v1", "statefulsets": "/apis/apps/v1", "daemonsets": "/apis/apps/v1", "replicasets": "/apis/apps/v1",
	"jobs":  "/apis/batch/v1",
	"peers": api,
}

// Names lists the names of a resource in a namespace, "" for the context's, or of all
// namespaces when it is "namespaces". Of very many it lists the first. It transfers
// nothing but metadata.
func (c *Client) Names(ctx context.Context, resource, namespace string) ([]string, error) {
	path := "/api/v1/namespaces"
	if resource != "namespaces" {
		group, ok := groups[resource]
		if !ok {
			return nil, fmt.Errorf("list %s: no such resource here", resource)
		}
		path = group + "/namespaces/" + cmp.Or(namespace, c.Namespace) + "/" + resource
	}
	raw, err := c.rest.Get().AbsPath(path).Param("limit", maxNames).
		SetHeader("Accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1").Do(ctx).Raw()
	if err != nil {
		return nil, c.explain("list the "+resource+" of", err)
	}
	var list metav1.PartialObjectMetadataList
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("read the list of %s: %w", resource, err)
	}
	names := make([]string, len(list.Items))
	for i := range list.Items {
		names[i] = list.Items[i].Name
	}
	return names, nil
}
