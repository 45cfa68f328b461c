{{- define "kthena-keda.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Name of most objects. It contains the release name, so that several releases can coexist, including their cluster-scoped objects. */}}
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

{{/* Labels by which the Deployment and other objects select the pods; they are immutable. */}}
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

{{/* Image of the stand-in pods. */}}
{{- define "kthena-keda.standInImage" -}}
{{- default (include "kthena-keda.image" .) .Values.standIns.image }}
{{- end }}

{{/* Port of a URL. */}}
{{- define "kthena-keda.port" -}}
{{- $url := urlParse . }}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" }}
{{- if $port }}{{ $port }}{{ else if eq $url.scheme "https" }}443{{ else }}80{{ end }}
{{- end }}

{{/* Renders "yes" if an object of the Prometheus Operator is to be created, and nothing otherwise. */}}
{{- define "kthena-keda.monitored" -}}
{{- if eq (toString .wanted) "auto" }}
{{- if .root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .kind) }}yes{{ end }}
{{- else if .wanted }}yes
{{- end }}
{{- end }}

{{/*
Renders "yes" if the cluster serves ValidatingAdmissionPolicies, and nothing otherwise. Without a cluster, as in `helm template`, Helm knows only
a Kubernetes version; ValidatingAdmissionPolicies are served from 1.30 on.
*/}}
{{- define "kthena-keda.servesPolicies" -}}
{{- $served := .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" }}
{{- if not (.Capabilities.APIVersions.Has "v1/Pod") }}
{{- $served = or $served (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if $served }}yes{{ end }}
{{- end }}

{{/* Renders "yes" if the admission policy for annotations is enabled and served, and nothing otherwise. */}}
{{- define "kthena-keda.admissionPolicy" -}}
{{- if and .Values.admissionPolicy.enabled (include "kthena-keda.servesPolicies" .) }}yes{{ end }}
{{- end }}

{{/* Renders "yes" if the admission policy for the operator's service account is enabled and served, and nothing otherwise. */}}
{{- define "kthena-keda.operatorPolicy" -}}
{{- if and .Values.operatorPolicy.enabled (include "kthena-keda.servesPolicies" .) }}yes{{ end }}
{{- end }}

{{/* "yes" if the policy that keeps the scale of ModelBoosters is wanted and the cluster serves its kind; helm template without a cluster decides by version. */}}
{{- define "kthena-keda.keepScaling" -}}
{{- $served := .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" }}
{{- if not (.Capabilities.APIVersions.Has "v1/Pod") }}
{{- $served = or $served (semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if and .Values.modelBooster.keepScaling $served }}yes{{ end }}
{{- end }}

{{/* Checks of values that the schema cannot express. */}}
{{- define "kthena-keda.check" -}}
{{- if not .Values.prometheus.url }}
{{- fail "\n\nprometheus.url is required: set it to the URL of Prometheus as KEDA reaches it, without a trailing slash, such as\n\n  --set prometheus.url=http://prometheus-operated.monitoring.svc:9090\n" }}
{{- end }}
{{- if and (gt (int .Values.replicas) 1) (not .Values.leaderElection.enabled) }}
{{- fail (printf "\n\nreplicas is %d and leaderElection.enabled is false: set replicas to 1, or enable leader election; without it the pods would overwrite each other's changes.\n" (int .Values.replicas)) }}
{{- end }}
{{- end }}

{{/* Subjects of the role bindings. */}}
{{- define "kthena-keda.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "kthena-keda.serviceAccountName" . }}
    namespace: {{ .Release.Namespace }}
{{- end }}

{{/* CEL expression that renders a value in a message: quoted, on one line, and shortened to 64 characters. */}}
{{- define "kthena-keda.quoted" -}}
strings.quote({{ . }}.size() > 64 ? {{ . }}.substring(0, 64) + '...' : {{ . }})
{{- end }}
