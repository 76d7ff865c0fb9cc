#!/bin/sh
# The alert rules as an object of the Prometheus operator, on stdout:
#   deploy/kubernetes/prometheus-rule.sh deploy/prometheus/rules.yml | kubectl apply -f -
set -eu
cat <<HEAD
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: elmyr
  namespace: elmyr
spec:
HEAD
sed 's/^/  /' "$1"
