{{/* What selects the pods. A selector cannot be changed: nothing else belongs here. */}}
{{- define "rwsgi.selector" -}}
app.kubernetes.io/name: rwsgi
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rwsgi.metadata" -}}
name: {{ .Release.Name }}
labels:
  {{- include "rwsgi.selector" . | nindent 2 }}
  app.kubernetes.io/managed-by: {{ .Release.Service }}
  helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* How the number of pods follows the load: at once when it grows, after five minutes when it falls. */}}
{{- define "rwsgi.behavior" -}}
scaleUp:
  policies:
    - type: Percent
      value: 100
      periodSeconds: 30
scaleDown:
  stabilizationWindowSeconds: 300
  policies:
    - type: Percent
      value: 20
      periodSeconds: 60
{{- end }}
