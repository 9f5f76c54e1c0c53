{{/*
podnet.options are the values with everything that follows from them, as JSON, under
the names that the manifests of podnet install use. The other templates are made of
those manifests by make generate.
*/}}
{{- define "podnet.options" -}}
{{- $v := .Values -}}
{{- $udp := $v.udpService -}}
{{- if $v.nodePort -}}
{{- $udp = $udp | default "NodePort" -}}
{{- if ne $udp "NodePort" }}{{ fail (printf "nodePort %d: needs a udpService of NodePort, not %s" (int $v.nodePort) $udp) }}{{ end -}}
{{- if gt (add (int $v.nodePort) (int $v.replicas) -1) 65535 }}{{ fail (printf "nodePort %d: out of range" (int $v.nodePort)) }}{{ end -}}
{{- end -}}
{{- if and $v.advertise (gt (int $v.replicas) 1) }}{{ fail (printf "advertise %s: leads to one gateway, and there are to be %d" (first $v.advertise) (int $v.replicas)) }}{{ end -}}
{{- $mebibytes := int (trimSuffix "Mi" (trimSuffix "Gi" $v.memory)) -}}
{{- if hasSuffix "Gi" $v.memory }}{{ $mebibytes = mul $mebibytes 1024 }}{{ end -}}
{{- if lt (int $mebibytes) 64 }}{{ fail (printf "memory %s: want at least 64Mi" $v.memory) }}{{ end -}}
{{- $request := $v.requestMemory | default (ternary $v.memory "192Mi" (lt (int $mebibytes) 192)) -}}
{{- $requested := int (trimSuffix "Mi" (trimSuffix "Gi" $request)) -}}
{{- if hasSuffix "Gi" $request }}{{ $requested = mul $requested 1024 }}{{ end -}}
{{- if gt (int $requested) (int $mebibytes) }}{{ fail (printf "requestMemory %s: want at most memory, %s" $request $v.memory) }}{{ end -}}
{{- $release := regexReplaceAll "[^A-Za-z0-9._-]" .Chart.AppVersion "_" | trunc 63 | trimAll "._-" -}}
{{- $labels := dict "app.kubernetes.io/name" "podnet" "app.kubernetes.io/part-of" "podnet" "app.kubernetes.io/managed-by" "podnet" "app.kubernetes.io/version" $release -}}
{{- $selector := dict "app.kubernetes.io/name" "podnet" "app.kubernetes.io/component" "gateway" -}}
{{- $pods := list -}}
{{- $services := list -}}
{{- range $i := until (int $v.replicas) -}}
{{- $pod := printf "podnet-gateway-%d" $i -}}
{{- $pods = append $pods $pod -}}
{{- if $udp -}}
{{- $port := 0 -}}
{{- if $v.nodePort }}{{ $port = add (int $v.nodePort) $i }}{{ end -}}
{{- $services = append $services (dict "Name" (ternary "podnet-gateway-udp" (printf "podnet-gateway-udp-%d" $i) (eq $i 0)) "Pod" $pod "Type" $udp "NodePort" $port) -}}
{{- end -}}
{{- end -}}
{{- $args := list (printf "--log-level=%s" $v.logLevel) -}}
{{- if $v.dnsDomain }}{{ $args = append $args (printf "--dns-domain=%s" $v.dnsDomain) }}{{ end -}}
{{- range $v.advertise }}{{ $args = append $args (printf "--advertise=%s" .) }}{{ end -}}
{{- range $v.podCIDRs }}{{ $args = append $args (printf "--pod-cidr=%s" .) }}{{ end -}}
{{- range $v.stun }}{{ $args = append $args (printf "--stun=%s" .) }}{{ end -}}
{{- if $v.userMetrics }}{{ $args = append $args "--user-metrics" }}{{ end -}}
{{- range $v.limits }}{{ $args = append $args (printf "--limit=%s" .) }}{{ end -}}
{{- if and $v.metricsFrom (not $v.networkPolicy) }}{{ fail (printf "metricsFrom %s: takes the networkPolicy that is to be left out" (first $v.metricsFrom)) }}{{ end -}}
{{- $from := list -}}
{{- range $v.metricsFrom }}{{ $from = append $from (dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" .))) }}{{ end -}}
{{- $subjects := list -}}
{{- range $v.usersAllowed }}{{ $subjects = append $subjects (dict "apiGroup" "rbac.authorization.k8s.io" "kind" "User" "name" .) }}{{ end -}}
{{- range $v.groupsAllowed }}{{ $subjects = append $subjects (dict "apiGroup" "rbac.authorization.k8s.io" "kind" "Group" "name" .) }}{{ end -}}
{{- $secrets := list -}}
{{- range $v.imagePullSecrets }}{{ $secrets = append $secrets (dict "name" .) }}{{ end -}}
{{- dict
  "Namespace" $v.namespace
  "GatewayUser" (printf "system:serviceaccount:%s:gateway" $v.namespace)
  "createNamespace" $v.createNamespace
  "Image" ($v.image | default (printf "podnet.dev/gateway:%s" .Chart.AppVersion))
  "AgentImage" ($v.agentImage | default (printf "podnet.dev/agent:%s" .Chart.AppVersion))
  "PullPolicy" $v.imagePullPolicy
  "ImagePullSecrets" $v.imagePullSecrets
  "pullSecrets" $secrets
  "Replicas" $v.replicas
  "Memory" $v.memory
  "RequestMemory" $request
  "RequestCPU" $v.requestCPU
  "goMemLimit" (printf "%dMiB" (div (mul (div (mul $mebibytes 1048576) 10) 9) 1048576))
  "Users" $v.usersAllowed
  "Groups" $v.groupsAllowed
  "subjects" $subjects
  "args" $args
  "NoNetworkPolicy" (not $v.networkPolicy)
  "MetricsFrom" $v.metricsFrom
  "metricsFrom" $from
  "pods" $pods
  "udpServices" $services
  "labels" $labels
  "selector" $selector
  "podLabels" (merge (dict) $labels $selector)
| toJson -}}
{{- end -}}
