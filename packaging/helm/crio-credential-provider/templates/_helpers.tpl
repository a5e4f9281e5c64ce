{{- define "selector" -}}
app.kubernetes.io/name: crio-credential-provider
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "gracePeriod" -}}
{{- $minutes := regexFind "^[0-9]+m" .Values.timeout | trimSuffix "m" | atoi }}
{{- $seconds := add (mul 60 $minutes) (regexFind "[0-9]+s$" .Values.timeout | trimSuffix "s" | atoi) }}
{{- if or (lt $seconds 1) (gt $seconds 3600) }}
{{- fail (printf "timeout: %s: must be 1s to 60m" .Values.timeout) }}
{{- end }}
{{- add $seconds 180 }}
{{- end }}

{{- /* JSON of {"items": tenants, "skipped": namespaces}: tenants of the values, then namespaces by their labels. Skipped is
one whose admin has made a Role or RoleBinding of that name, or changed ours, so that Helm would refuse the whole upgrade. */}}
{{- define "tenants" -}}
{{- $tenants := .Values.tenants }}
{{- $names := list }}
{{- range $tenants }}
{{- $names = append $names .namespace }}
{{- end }}
{{- $skipped := list }}
{{- $selector := .Values.tenantSelector | default dict }}
{{- $roles := list "pull-secrets" }}
{{- if eq .Values.secretsFrom "service-account" }}
{{- $roles = list }}
{{- range $selector.serviceAccounts | default (list "default") }}
{{- $roles = append $roles (printf "pull-secrets-of-%s" .) }}
{{- end }}
{{- end }}
{{- with $selector.matchLabels }}
{{- $wanted := . }}
{{- range (lookup "v1" "Namespace" "" "").items }}
{{- $labels := .metadata.labels | default dict }}
{{- $matches := and (ne .status.phase "Terminating") (not (has .metadata.name $names)) }}
{{- range $key, $value := $wanted }}
{{- $matches = and $matches (hasKey $labels $key) (eq (get $labels $key) $value) }}
{{- end }}
{{- $namespace := .metadata.name }}
{{- $ours := true }}
{{- if $matches }}
{{- range $role := $roles }}
{{- range $kind := list "Role" "RoleBinding" }}
{{- with lookup "rbac.authorization.k8s.io/v1" $kind $namespace $role }}
{{- $labels := .metadata.labels | default dict }}
{{- $annotations := .metadata.annotations | default dict }}
{{- $ours = and $ours (eq (get $labels "app.kubernetes.io/managed-by") $.Release.Service) }}
{{- $ours = and $ours (eq (get $annotations "meta.helm.sh/release-name") $.Release.Name) }}
{{- $ours = and $ours (eq (get $annotations "meta.helm.sh/release-namespace") $.Release.Namespace) }}
{{- with .roleRef }}
{{- $ours = and $ours (eq .kind "Role") (eq .name $role) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if and $matches (not $ours) }}
{{- $skipped = append $skipped $namespace }}
{{- else if $matches }}
{{- $tenants = append $tenants (merge (dict "namespace" $namespace) (omit $selector "matchLabels")) }}
{{- end }}
{{- end }}
{{- end }}
{{- dict "items" $tenants "skipped" $skipped | toJson }}
{{- end }}

{{- define "pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}
