{{/* What names begin with: the release, and the chart where the release does not name it. */}}
{{- define "slurm-jupyterhub.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* (dict "root" $ "component" name) */}}
{{- define "slurm-jupyterhub.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "slurm-jupyterhub.labels" -}}
{{ include "slurm-jupyterhub.selector" . }}
app.kubernetes.io/version: {{ .root.Values.image.tag | default .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "slurm-jupyterhub.image" -}}
{{ printf "%s/%s:%s" .root.Values.image.repository .name (.root.Values.image.tag | default .root.Chart.AppVersion) }}
{{- end -}}

{{- define "slurm-jupyterhub.claim" -}}
{{ .Values.sharedClaim | default (printf "%s-shared" .Values.cluster) }}
{{- end -}}

{{/* The Secret with munge.key; empty where the key comes by extraFiles. */}}
{{- define "slurm-jupyterhub.munge-secret" -}}
{{- if .Values.munge.existingSecret }}{{ .Values.munge.existingSecret }}
{{- else if .Values.cluster }}{{ .Values.cluster }}-munge-key
{{- end -}}
{{- end -}}

{{/* As JSON, the fragments of the hub's configuration by file name: a site's replaces the chart's. */}}
{{- define "slurm-jupyterhub.fragments" -}}
{{- $files := dict "15-address.py" (.Files.Get "files/15-address.py") }}
{{- if eq .Values.spawner "kube" }}
{{- $_ := set $files "30-spawner.py" (.Files.Get "files/30-spawner.py") }}
{{- end }}
{{- mustMergeOverwrite $files .Values.hub.config | toJson }}
{{- end -}}

{{/* As JSON, those of extraFiles that have a content, by key. */}}
{{- define "slurm-jupyterhub.files" -}}
{{- $files := dict }}
{{- range $key, $file := .Values.singleuser.extraFiles }}
{{- if and $file.stringData $file.binaryData }}
{{- fail (printf "singleuser.extraFiles.%s has stringData and binaryData: give one of them" $key) }}
{{- end }}
{{- if or $file.stringData $file.binaryData }}
{{- $_ := set $files $key $file }}
{{- end }}
{{- end }}
{{- toJson $files }}
{{- end -}}

{{- define "slurm-jupyterhub.host-aliases" -}}
{{- $aliases := .Values.hostAliases }}
{{- if .Values.slurmctld.address }}
{{- $aliases = prepend $aliases (dict "ip" .Values.slurmctld.address "hostnames" (list .Values.slurmctld.host)) }}
{{- end }}
{{- toJson $aliases }}
{{- end -}}

{{/* As JSON, KubeSpawner's settings by its own names. */}}
{{- define "slurm-jupyterhub.kubespawner" -}}
{{- $fullname := include "slurm-jupyterhub.fullname" . }}
{{- $files := include "slurm-jupyterhub.files" . | fromJson }}
{{- $environment := dict }}
{{- $labels := dict "app.kubernetes.io/instance" .Release.Name }}
{{- $volumes := list }}
{{- $mounts := list }}
{{- if $files }}
{{- $items := list }}
{{- range $key, $file := $files }}
{{- $items = append $items (dict "key" $key "path" $key "mode" (int (default 0444 $file.mode))) }}
{{- $mounts = append $mounts (dict "name" "files" "mountPath" $file.mountPath "subPath" $key "readOnly" true) }}
{{- end }}
{{- $volumes = append $volumes (dict "name" "files" "secret" (dict "secretName" (printf "%s-singleuser" $fullname) "items" $items)) }}
{{- end }}
{{- with include "slurm-jupyterhub.munge-secret" . }}
{{- $volumes = append $volumes (dict "name" "munge" "secret" (dict "secretName" . "items" (list (dict "key" "munge.key" "path" "munge.key" "mode" 0444)))) }}
{{- $mounts = append $mounts (dict "name" "munge" "mountPath" "/etc/munge/munge.key" "subPath" "munge.key" "readOnly" true) }}
{{- end }}
{{- if .Values.cluster }}
{{- $_ := set $labels "org.slurm-testbed.cluster" .Values.cluster }}
{{- $volumes = append $volumes (dict "name" "shared" "persistentVolumeClaim" (dict "claimName" (include "slurm-jupyterhub.claim" .))) }}
{{- $mounts = append $mounts (dict "name" "shared" "mountPath" "/shared" "subPath" "shared") }}
{{- $mounts = append $mounts (dict "name" "shared" "mountPath" "/home" "subPath" "home") }}
{{- $mounts = append $mounts (dict "name" "shared" "mountPath" "/etc/slurm/slurm.conf" "subPath" "shared/slurm-config/slurm.conf" "readOnly" true) }}
{{- else if not (hasKey $files "slurm-conf") }}
{{- $_ := set $environment "SLURM_CONF_SERVER" (printf "%s:%v" .Values.slurmctld.host .Values.slurmctld.port) }}
{{- end }}
{{- $pod := dict "enableServiceLinks" false }}
{{- with include "slurm-jupyterhub.host-aliases" . | fromJsonArray }}
{{- $_ := set $pod "hostAliases" . }}
{{- end }}
{{- with .Values.singleuser }}
{{- $settings := dict "image" (include "slurm-jupyterhub.image" (dict "root" $ "name" .image)) }}
{{- $_ := set $settings "image_pull_policy" $.Values.image.pullPolicy }}
{{- $_ := set $settings "image_pull_secrets" $.Values.image.pullSecrets }}
{{- $_ := set $settings "uid" 1000 }}
{{- $_ := set $settings "gid" 1000 }}
{{- /* Kubernetes would give the cluster's whole volume to the group, its keys included. */}}
{{- if not $.Values.cluster }}
{{- $_ := set $settings "fs_gid" 1000 }}
{{- end }}
{{- /* No pod has a claim of its own, and the hub may delete none. */}}
{{- $_ := set $settings "delete_pvc" false }}
{{- $_ := set $settings "container_security_context" (dict "capabilities" (dict "drop" (list "ALL")) "seccompProfile" (dict "type" "RuntimeDefault")) }}
{{- $_ := set $settings "environment" (merge (dict) .extraEnv $environment) }}
{{- $_ := set $settings "start_timeout" (int .startTimeout) }}
{{- $_ := set $settings "cpu_guarantee" .cpu.guarantee }}
{{- $_ := set $settings "cpu_limit" .cpu.limit }}
{{- $_ := set $settings "mem_guarantee" .memory.guarantee }}
{{- $_ := set $settings "mem_limit" .memory.limit }}
{{- $_ := set $settings "component_label" "singleuser" }}
{{- /* Two hubs of a namespace would take each other's pods for their own, and end them. */}}
{{- $_ := set $settings "pod_name_template" (printf "%s-{user_server}" $fullname) }}
{{- $_ := set $settings "extra_labels" $labels }}
{{- $_ := set $settings "extra_pod_config" $pod }}
{{- $_ := set $settings "volumes" $volumes }}
{{- $_ := set $settings "volume_mounts" $mounts }}
{{- toJson $settings }}
{{- end }}
{{- end -}}
