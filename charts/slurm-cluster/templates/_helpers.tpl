{{/* What names begin with: the release, and the chart where the release does not name it. */}}
{{- define "slurm-cluster.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* (dict "root" $ "component" name): the labels of everything that belongs to a component. */}}
{{- define "slurm-cluster.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "slurm-cluster.labels" -}}
{{ include "slurm-cluster.selector" . }}
app.kubernetes.io/version: {{ .root.Values.image.tag | default .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* Hosts of the cluster and its clients have it: they reach one another. */}}
{{- define "slurm-cluster.member" -}}
org.slurm-testbed.cluster: {{ include "slurm-cluster.fullname" . }}
{{- end -}}

{{- define "slurm-cluster.claim" -}}
{{ .Values.storage.existingClaim | default (printf "%s-shared" (include "slurm-cluster.fullname" .)) }}
{{- end -}}

{{- define "slurm-cluster.munge-secret" -}}
{{ .Values.keys.munge.existingSecret | default (printf "%s-munge-key" (include "slurm-cluster.fullname" .)) }}
{{- end -}}

{{- define "slurm-cluster.jwt-secret" -}}
{{ .Values.keys.jwt.existingSecret | default (printf "%s-jwt-key" (include "slurm-cluster.fullname" .)) }}
{{- end -}}

{{- define "slurm-cluster.image" -}}
image: {{ printf "%s/%s:%s" .root.Values.image.repository .name (.root.Values.image.tag | default .root.Chart.AppVersion) | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- end -}}

{{/*
(dict "root" $ "component" name "annotations" dict): the head of a pod's template. It does not tell the chart's version:
a newer chart that changes nothing else ends no job.
*/}}
{{- define "slurm-cluster.pod-metadata" -}}
metadata:
  labels:
    {{- include "slurm-cluster.selector" . | nindent 4 }}
    {{- include "slurm-cluster.member" .root | nindent 4 }}
  {{- with merge (dict) (.annotations | default dict) .root.Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/*
What all pods have. No pod asks Kubernetes for anything. Without enableServiceLinks: false a service would set variables
such as SLURM_NODES_PORT, which the image takes for its own settings.
*/}}
{{- define "slurm-cluster.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 30
securityContext:
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
A list of capabilities that a container has besides those that every host needs. Daemons start as root and give it up
themselves (SETUID, SETGID); keys and configuration get owners (CHOWN, DAC_OVERRIDE, FOWNER); jobs are signalled (KILL).
*/}}
{{- define "slurm-cluster.security" -}}
securityContext:
  runAsUser: 0
  # SYS_ADMIN and this exclude each other.
  allowPrivilegeEscalation: {{ has "SYS_ADMIN" . }}
  capabilities:
    drop: [ALL]
    add: {{ concat (list "CHOWN" "DAC_OVERRIDE" "FOWNER" "KILL" "SETGID" "SETUID") . | toJson }}
{{- end -}}

{{/* Every host has these. */}}
{{- define "slurm-cluster.environment" -}}
- {name: SLURMCTLD_HOST, value: slurmctld}
- {name: SLURMDBD_HOST, value: slurmdbd}
- {name: SLURM_CLUSTER_NAME, value: {{ .Values.clusterName | quote }}}
- {name: SLURM_DEBUG, value: {{ .Values.debug | quote }}}
- {name: SLURM_TESTBED_DEADLINE, value: {{ .Values.startDeadline | quote }}}
# Each host tells its address on the shared tree, and keeps those of all in /etc/hosts.
- {name: SLURM_TESTBED_SERVICES, value: hosts}
{{- range $name, $value := .Values.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end -}}

{{- define "slurm-cluster.mounts" -}}
- {name: shared, mountPath: /shared, subPath: shared}
- {name: shared, mountPath: /home, subPath: home}
{{- end -}}

{{- define "slurm-cluster.volume" -}}
- name: shared
  persistentVolumeClaim: {claimName: {{ include "slurm-cluster.claim" . }}}
{{- end -}}

{{/*
Each asks the daemons of the container. The first waits for the end of the start, and then answers at once; a check that
asked again and again would take the time of it.
*/}}
{{- define "slurm-cluster.probes" -}}
startupProbe:
  exec: {command: [slurm-ready, --wait, "8"]}
  periodSeconds: 1
  timeoutSeconds: 15
  failureThreshold: {{ .Values.startDeadline | int }}
readinessProbe:
  exec: {command: [slurm-ready]}
  periodSeconds: 10
  timeoutSeconds: 15
livenessProbe:
  exec: {command: [slurm-ready]}
  periodSeconds: 30
  timeoutSeconds: 30
  failureThreshold: 4
{{- end -}}

{{/* (list FOLDER MAP NAME): mounts of a map of files in /etc/slurm/FOLDER, from a volume. */}}
{{- define "slurm-cluster.fragments-volume" -}}
{{- if index . 1 }}
- name: {{ index . 0 | replace "." "-" }}
  configMap: {name: {{ index . 2 }}-{{ index . 0 | replace "." "-" }}}
{{- end }}
{{- end -}}

{{- define "slurm-cluster.fragments-mount" -}}
{{- if index . 1 }}
- {name: {{ index . 0 | replace "." "-" }}, mountPath: /etc/slurm/{{ index . 0 }}}
{{- end }}
{{- end -}}
