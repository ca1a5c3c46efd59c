{{- define "pilotwave.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "pilotwave.selector" -}}
app.kubernetes.io/name: pilotwave
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pilotwave.labels" -}}
{{ include "pilotwave.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "pilotwave.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "pilotwave.pod" -}}
serviceAccountName: {{ include "pilotwave.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
volumes:
  - name: data
    emptyDir: {}
  - name: tmp
    emptyDir: {}
  {{- if .Values.blobs.claim }}
  - name: blobs
    persistentVolumeClaim: {claimName: {{ .Values.blobs.claim }}}
  {{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "pilotwave.container" -}}
image: {{ include "pilotwave.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: data, mountPath: /data}
  - {name: tmp, mountPath: /tmp}
  {{- if .Values.blobs.claim }}
  - {name: blobs, mountPath: /data/blobs}
  {{- end }}
env:
  - name: PILOTWAVE_DATABASE_URL
    valueFrom: {secretKeyRef: {name: {{ .Values.secret }}, key: database-url}}
  - name: PILOTWAVE_KEY_ENCRYPTION_KEY
    valueFrom: {secretKeyRef: {name: {{ .Values.secret }}, key: key-encryption-key}}
  - {name: PILOTWAVE_PUBLIC_URL, value: {{ .Values.publicUrl | quote }}}
  - {name: PILOTWAVE_LOG_FORMAT, value: json}
  - {name: PILOTWAVE_DRAIN_S, value: {{ .Values.drainSeconds | quote }}}
  {{- if .Values.blobs.url }}
  - {name: PILOTWAVE_BLOBS, value: {{ .Values.blobs.url | quote }}}
  {{- end }}
  {{- if .Values.trustedProxies }}
  - {name: PILOTWAVE_TRUSTED_PROXIES, value: {{ .Values.trustedProxies | quote }}}
  {{- end }}
  {{- range $name, $value := .Values.settings }}
  - {name: {{ $name }}, value: {{ $value | quote }}}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.extraEnvFrom }}
envFrom: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
