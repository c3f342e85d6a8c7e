"""Builds the application for Ray Serve: ``serve run ada.serve.ray.app:app``.

Its arguments, on the command line or in a config file, are the fields of ``Settings``.
"""

import shlex
from typing import Any

from pydantic import BaseModel, Field
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.deployment import Application

from ada.serve.ray.handles import HandleBackend
from ada.serve.ray.replica import Replica
from llava.flags import from_flags
from llava.model.loaded_model import name_of
from llava.serve import model_worker, openai_api
from llava.serve.hosting.options import HostingOptions
from llava.serve.middleware.allowed_hosts import allowed_names

ROUTER = "ada.serve.ray.router.PromiseRouter"
API_REQUESTS = 1000  # that one replica of the API answers at a time
STATS_PERIOD_S, HEALTH_PERIOD_S = 0.5, 5.0


class Settings(BaseModel, extra="forbid"):
    """What is served.

    workers: flags of ``llava.serve.model_worker``, for each model; models' flags are separated by ";" in a text. api:
    flags of ``llava.serve.openai_api``. num_cpus, num_gpus: of a replica. router: a class of Ray's ``RequestRouter``.
    """

    workers: str | list[str] = ["--adaptive-budget 0.3"]
    api: str = ""
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    min_replicas: int = Field(default=1, ge=0)
    max_replicas: int = Field(default=1, ge=1)
    router: str = ROUTER


def app(settings: Settings) -> Application:
    """Return the API with a deployment for each model."""
    texts = settings.workers.split(";") if isinstance(settings.workers, str) else settings.workers
    models = {}
    for flags in map(shlex.split, texts):
        args = model_worker.parse_arguments(flags)
        name = name_of(vars(args))
        models[name] = _model(name, flags, args.limit_model_concurrency, args.max_queue_length, settings)
    names, args = [*models], openai_api.parse_arguments(shlex.split(settings.api))

    def build() -> Any:
        handles = {name: serve.get_deployment_handle(name) for name in names}
        api = openai_api.chat_api(args, HandleBackend(handles, args.worker_timeout))
        hosts = allowed_names(args.host, from_flags(HostingOptions, args).extra_hosts)
        return openai_api.create_app(api, api.middleware(hosts))

    ingress = serve.deployment(serve.ingress(build)())
    options = ingress.options(name="api", max_ongoing_requests=API_REQUESTS, ray_actor_options={"num_cpus": 0})
    return options.bind(*models.values())


def _model(name: str, flags: list[str], slots: int, queue: int, settings: Settings) -> Application:
    """Return a model's deployment, which grows with the requests that its replicas answer and that wait for them."""
    deployment = serve.deployment(Replica).options(
        name=name,
        max_ongoing_requests=slots + queue,
        max_queued_requests=queue,
        ray_actor_options={"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus},
        health_check_period_s=HEALTH_PERIOD_S,
        autoscaling_config=AutoscalingConfig(
            min_replicas=settings.min_replicas, max_replicas=settings.max_replicas, target_ongoing_requests=slots
        ),
        request_router_config=RequestRouterConfig(
            request_router_class=settings.router, request_routing_stats_period_s=STATS_PERIOD_S
        ),
    )
    return deployment.bind(flags)
