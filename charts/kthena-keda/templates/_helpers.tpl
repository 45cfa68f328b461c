{{- define "kthena-keda.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of nearly everything. With the release's name in it, several releases stand side by side, objects of the cluster included. */}}
{{- define "kthena-keda.fullname" -}}
{{- $name := include "kthena-keda.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What a Deployment and whoever looks for its pods select by; it can never change. */}}
{{- define "kthena-keda.selectorLabels" -}}
app.kubernetes.io/name: {{ include "kthena-keda.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kthena-keda.labels" -}}
{{ include "kthena-keda.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: kthena
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "kthena-keda.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "kthena-keda.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "kthena-keda.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The port of a URL. */}}
{{- define "kthena-keda.port" -}}
{{- $url := urlParse . }}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" }}
{{- if $port }}{{ $port }}{{ else if eq $url.scheme "https" }}443{{ else }}80{{ end }}
{{- end }}

{{/* Whether an object of the Prometheus Operator is to be made; empty for no. */}}
{{- define "kthena-keda.monitored" -}}
{{- if eq (toString .wanted) "auto" }}
{{- if .root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .kind) }}yes{{ end }}
{{- else if .wanted }}yes
{{- end }}
{{- end }}

{{/*
Whether ValidatingAdmissionPolicies are served and one is wanted; empty for no. Without a cluster, as in `helm template`, Helm knows no kinds but a
version of Kubernetes; they are there from 1.30 on.
*/}}
{{- define "kthena-keda.admissionPolicy" -}}
{{- $served := .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" }}
{{- if not (.Capabilities.APIVersions.Has "v1/Pod") }}
{{- $served = or $served (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if and .Values.admissionPolicy.enabled $served }}yes{{ end }}
{{- end }}

{{/* What the schema cannot say. */}}
{{- define "kthena-keda.check" -}}
{{- if not .Values.prometheus.url }}
{{- fail "\n\nprometheus.url is missing: write where Prometheus is, as KEDA reaches it, without a trailing slash, such as\n\n  --set prometheus.url=http://prometheus-operated.monitoring.svc:9090\n" }}
{{- end }}
{{- if and (gt (int .Values.replicas) 1) (not .Values.leaderElection.enabled) }}
{{- fail "\n\nleaderElection.enabled is false: set replicas to 1, since two that both work would undo each other's work.\n" }}
{{- end }}
{{- end }}

{{/* Who the roles are bound to. */}}
{{- define "kthena-keda.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "kthena-keda.serviceAccountName" . }}
    namespace: {{ .Release.Namespace }}
{{- end }}

{{/* A value as messages show it: quoted, in one line, and not too long. */}}
{{- define "kthena-keda.quoted" -}}
strings.quote({{ . }}.size() > 100 ? {{ . }}.substring(0, 100) + '...' : {{ . }})
{{- end }}
