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

{{- /* JSON of {"items": tenants}: those of the values, then namespaces by their labels. */}}
{{- define "tenants" -}}
{{- $tenants := .Values.tenants }}
{{- $names := list }}
{{- range $tenants }}
{{- $names = append $names .namespace }}
{{- end }}
{{- $selector := .Values.tenantSelector | default dict }}
{{- with $selector.matchLabels }}
{{- $wanted := . }}
{{- range (lookup "v1" "Namespace" "" "").items }}
{{- $labels := .metadata.labels | default dict }}
{{- $matches := and (ne .status.phase "Terminating") (not (has .metadata.name $names)) }}
{{- range $key, $value := $wanted }}
{{- $matches = and $matches (hasKey $labels $key) (eq (get $labels $key) $value) }}
{{- end }}
{{- if $matches }}
{{- $tenants = append $tenants (merge (dict "namespace" .metadata.name) (omit $selector "matchLabels")) }}
{{- end }}
{{- end }}
{{- end }}
{{- dict "items" $tenants | toJson }}
{{- end }}

{{- define "pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}
