"""Builds the application for Ray Serve: ``serve run ada.serve.ray.app:app``.

Its arguments, on the command line or in a config file, are the fields of ``Settings``.
"""

import shlex
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.deployment import Application

from ada.serve.ray.handles import HandleBackend
from ada.serve.ray.replica import Replica
from ada.serve.ray.shared_replica import SharedReplica
from llava.flags import from_flags
from llava.model.loaded_model import name_of
from llava.serve import model_worker, openai_api
from llava.serve.hosting.options import HostingOptions
from llava.serve.middleware.allowed_hosts import allowed_names

ROUTER, SHARED = "ada.serve.ray.router.PromiseRouter", "models"  # SHARED: whose replicas answer for several models
API_REQUESTS = 1000  # that one replica of the API answers at a time
STATS_PERIOD_S, HEALTH_PERIOD_S = 0.5, 5.0


class Settings(BaseModel, extra="forbid"):
    """What is served.

    workers: flags of ``llava.serve.model_worker``, for each model; models' flags are separated by ";" in a text. api:
    flags of ``llava.serve.openai_api``. models_per_replica: that a replica loads as they are asked for; 0: each has
    replicas that serve no other. num_cpus, num_gpus: of a replica. router: a class of Ray's ``RequestRouter``.
    """

    workers: str | list[str] = ["--adaptive-budget 0.3"]
    api: str = ""
    models_per_replica: int = Field(default=0, ge=0)
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    min_replicas: int = Field(default=1, ge=0)
    max_replicas: int = Field(default=1, ge=1)
    router: str = ROUTER


def app(settings: Settings) -> Application:
    """Return the API with a deployment for each model, or one for all."""
    texts = settings.workers.split(";") if isinstance(settings.workers, str) else settings.workers
    models = {name_of(vars(model_worker.parse_arguments(flags))): flags for flags in map(shlex.split, texts)}
    at_once = settings.models_per_replica
    if at_once:
        deployments = [_deployment(SharedReplica, SHARED, [*models.values()], at_once, settings).bind(models, at_once)]
    else:
        deployments = [_deployment(Replica, name, [flags], 1, settings).bind(flags) for name, flags in models.items()]
    args = openai_api.parse_arguments(shlex.split(settings.api))

    def build() -> Any:
        handles = {name: serve.get_deployment_handle(SHARED if at_once else name) for name in models}
        api = openai_api.chat_api(args, HandleBackend(handles, args.worker_timeout))
        hosts = allowed_names(args.host, from_flags(HostingOptions, args).extra_hosts)
        return openai_api.create_app(api, api.middleware(hosts))

    ingress = serve.deployment(serve.ingress(build)())
    options = {"name": "api", "max_ongoing_requests": API_REQUESTS, "ray_actor_options": {"num_cpus": 0}}
    return ingress.options(**options).bind(*deployments)


def _deployment(
    replica: type, name: str, models: Sequence[Sequence[str]], at_once: int, settings: Settings
) -> serve.Deployment:
    """Return a deployment that grows with the requests that its replicas answer and that wait for them.

    models: flags of each that a replica may load, ``at_once`` of them at the same time.
    """
    args = [model_worker.parse_arguments([*flags]) for flags in models]
    slots = at_once * max(one.limit_model_concurrency for one in args)
    queue = at_once * max(one.max_queue_length for one in args)
    return serve.deployment(replica).options(
        name=name,
        max_ongoing_requests=slots + queue,
        max_queued_requests=max(1, queue),  # Ray takes no 0
        ray_actor_options={"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus},
        health_check_period_s=HEALTH_PERIOD_S,
        autoscaling_config=AutoscalingConfig(
            min_replicas=settings.min_replicas, max_replicas=settings.max_replicas, target_ongoing_requests=slots
        ),
        request_router_config=RequestRouterConfig(
            request_router_class=settings.router, request_routing_stats_period_s=STATS_PERIOD_S
        ),
    )
