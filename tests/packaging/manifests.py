"""Writes packaging/kubernetes/kvatlas.yaml: the chart rendered with its defaults."""
from test_kubernetes import PLAIN, render

PLAIN.write_text("# The chart of packaging/helm/kvatlas with its defaults, for those without Helm: kubectl apply -f kvatlas.yaml\n"
                 "# Written by `make manifests`; set the image first.\n---\n" + render())
