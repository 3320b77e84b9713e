{{- define "tocsin.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/part-of: tocsin
{{- end }}

{{- define "tocsin.image" -}}
{{ .Values.image.registry }}/{{ .program }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* What the pods of all components have in common. */ -}}
{{- define "tocsin.pod" -}}
serviceAccountName: {{ .name }}
automountServiceAccountToken: {{ .token }}
priorityClassName: {{ .Values.priorityClass.name }}
securityContext:
{{- if .root }}
  runAsNonRoot: false
  runAsUser: 0
  runAsGroup: 0
{{- else }}
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
{{- end }}
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with .component.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .component.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- end }}

{{- /* What their containers have in common. */ -}}
{{- define "tocsin.container" -}}
image: {{ include "tocsin.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
resources:
  requests: {{ toJson .component.resources.requests }}
  limits: {{ toJson .component.resources.limits }}
{{- end }}

{{- define "tocsin.log" -}}
- --log.level={{ .Values.log.level }}
- --log.format={{ .Values.log.format }}
{{- end }}

{{- define "tocsin.extraArgs" -}}
{{- range .component.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{- define "tocsin.podEnv" -}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- end }}
