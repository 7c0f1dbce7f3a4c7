#!/usr/bin/env python3
"""Which fields a Kubernetes object may have: as much of the API (1.30) as the manifests here use.

A field that is misspelled, or stands a level too high, is refused by an API server, or, worse, dropped. There is none
here to ask, so this is what catches it. A manifest that needs a field more adds it below.

Of a shape: `name` is a value, `name=Shape` an object, `name=[Shape]` a list of them, `name=[]` a list of values,
`name={}` a map of values. `!` stands behind what may not be missing.
"""

SHAPES = {
    "Namespace": "apiVersion! kind! metadata=Metadata!",
    "Job": "apiVersion! kind! metadata=Metadata! spec=JobSpec!",
    "Deployment": "apiVersion! kind! metadata=Metadata! spec=DeploymentSpec!",
    "Service": "apiVersion! kind! metadata=Metadata! spec=ServiceSpec!",
    "HorizontalPodAutoscaler": "apiVersion! kind! metadata=Metadata! spec=AutoscalerSpec!",
    "PodDisruptionBudget": "apiVersion! kind! metadata=Metadata! spec=BudgetSpec!",
    "NetworkPolicy": "apiVersion! kind! metadata=Metadata! spec=PolicySpec!",
    "ConfigMap": "apiVersion! kind! metadata=Metadata! data={}!",
    "Metadata": "name! namespace labels={} annotations={}",
    "JobSpec": "backoffLimit ttlSecondsAfterFinished template=Template!",
    "DeploymentSpec": "minReadySeconds strategy=Strategy selector=Selector! template=Template!",
    "Strategy": "type rollingUpdate=RollingUpdate",
    "RollingUpdate": "maxSurge maxUnavailable",
    "Selector": "matchLabels={}!",
    "Template": "metadata=PodMetadata! spec=PodSpec!",
    "PodMetadata": "labels={}! annotations={}",
    "PodSpec": "restartPolicy automountServiceAccountToken enableServiceLinks terminationGracePeriodSeconds "
    "securityContext=PodSecurity! topologySpreadConstraints=[Spread] containers=[Container]! volumes=[Volume]",
    "PodSecurity": "runAsNonRoot! runAsUser runAsGroup fsGroup seccompProfile=Seccomp!",
    "Seccomp": "type!",
    "Spread": "maxSkew! topologyKey! whenUnsatisfiable! labelSelector=Selector!",
    "Container": "name! image! args=[]! env=[Variable] ports=[ContainerPort] startupProbe=Probe "
    "livenessProbe=Probe readinessProbe=Probe resources=Resources! securityContext=Security! volumeMounts=[Mount]",
    "Variable": "name! value valueFrom=ValueFrom",
    "ValueFrom": "secretKeyRef=SecretKey fieldRef=Field",
    "SecretKey": "name! key!",
    "Field": "fieldPath!",
    "ContainerPort": "name! containerPort!",
    "Probe": "httpGet=HTTPGet! periodSeconds timeoutSeconds failureThreshold",
    "HTTPGet": "path! port!",
    "Resources": "requests={}! limits={}!",
    "Security": "allowPrivilegeEscalation! readOnlyRootFilesystem! capabilities=Capabilities!",
    "Capabilities": "drop=[]!",
    "Mount": "name! mountPath! subPath readOnly",
    "Volume": "name! configMap=ConfigMapVolume secret=SecretVolume emptyDir=EmptyDir",
    "ConfigMapVolume": "name!",
    "SecretVolume": "secretName! defaultMode optional",
    "EmptyDir": "sizeLimit!",
    "ServiceSpec": "selector={}! ports=[ServicePort]!",
    "ServicePort": "name! port! targetPort!",
    "AutoscalerSpec": "scaleTargetRef=Target! minReplicas! maxReplicas! metrics=[Metric]! behavior=Behavior",
    "Target": "apiVersion! kind! name!",
    "Metric": "type! resource=ResourceMetric!",
    "ResourceMetric": "name! target=MetricTarget!",
    "MetricTarget": "type! averageUtilization!",
    "Behavior": "scaleUp=Scaling scaleDown=Scaling",
    "Scaling": "stabilizationWindowSeconds policies=[ScalingPolicy]",
    "ScalingPolicy": "type! value! periodSeconds!",
    "BudgetSpec": "maxUnavailable! selector=Selector!",
    "PolicySpec": "podSelector=Selector! policyTypes=[]! ingress=[Ingress]!",
    "Ingress": "ports=[PolicyPort]! from=[Peer]",
    "PolicyPort": "port! protocol",
    "Peer": "podSelector=Selector namespaceSelector=Selector",
}

# The versions of the API in which each kind is served by every Kubernetes from 1.30 on.
VERSIONS = {
    "Namespace": "v1",
    "ConfigMap": "v1",
    "Service": "v1",
    "Job": "batch/v1",
    "Deployment": "apps/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "PodDisruptionBudget": "policy/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
}


def fields(shape):
    """name → (what it is, whether it must be there)"""
    known = {}
    for field in SHAPES[shape].split():
        name, _, what = field.rstrip("!").partition("=")
        known[name] = (what, field.endswith("!"))
    return known


def misfits(value, shape, path):
    """What of `value` does not fit, one sentence each."""
    if not isinstance(value, dict):
        yield f"{path} is no object"
        return
    known = fields(shape)
    for name in value.keys() - known.keys():
        yield f"{path}.{name} is no field that is known"
    for name, (what, needed) in known.items():
        if name not in value:
            if needed:
                yield f"{path}.{name} is missing"
            continue
        inner, place = value[name], f"{path}.{name}"
        if what.startswith("["):
            if not isinstance(inner, list) or not inner:
                yield f"{place} is no list, or an empty one"
                continue
            for number, element in enumerate(inner):
                yield from part_misfits(element, what[1:-1], f"{place}[{number}]")
        elif what == "{}":
            if not isinstance(inner, dict) or any(isinstance(entry, (dict, list)) for entry in inner.values()):
                yield f"{place} is no map of values"
        else:
            yield from part_misfits(inner, what, place)


def part_misfits(value, shape, path):
    if shape:
        yield from misfits(value, shape, path)
    elif isinstance(value, (dict, list)) or value is None:
        yield f"{path} is no value"


def object_misfits(document):
    """What is wrong with the fields of one object of a manifest."""
    kind = document.get("kind")
    if kind not in VERSIONS:
        yield f"the kind {kind} is not known"
        return
    if document.get("apiVersion") != VERSIONS[kind]:
        yield f"{kind} is {VERSIONS[kind]}, not {document.get('apiVersion')}"
    yield from misfits(document, kind, kind)
