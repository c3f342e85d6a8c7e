"""The controller's endpoints for workers and clients, and its flags."""

import pytest
from fixtures.fake_workers import STATUS, address_of, answering

from llava.serve import controller
from llava.serve.controller import create_app

pytestmark = pytest.mark.anyio
BEAT = {"worker_name": address_of(1), "queue_length": 7}


async def test_registered_worker_serves_its_models(fleet):
    assert (await fleet.post("/list_models")).json() == {"models": []}
    reply = await fleet.add(1, answering())
    assert reply.status_code == 200 and reply.json() is None
    assert (await fleet.post("/list_models")).json() == {"models": ["tiny"]}


async def test_worker_address_is_given_for_served_models_only(fleet):
    await fleet.add(1, answering())
    assert (await fleet.post("/get_worker_address", {"model": "tiny"})).json() == {"address": address_of(1)}
    assert (await fleet.post("/get_worker_address", {"model": "other"})).json() == {"address": ""}


async def test_heartbeat_of_an_unknown_worker_asks_it_to_register(fleet):
    assert (await fleet.post("/receive_heart_beat", BEAT)).json() == {"exist": False}


async def test_heartbeat_sets_the_queue_length_of_the_status(fleet):
    await fleet.add(1, answering())
    assert (await fleet.post("/worker_get_status")).json() == STATUS
    assert (await fleet.post("/receive_heart_beat", BEAT)).json() == {"exist": True}
    assert (await fleet.post("/worker_get_status")).json() == {**STATUS, "queue_length": 7}


async def test_worker_without_heartbeat_is_forgotten(fleet):
    await fleet.add(1, answering())
    fleet.now[0] = 31.0
    assert (await fleet.post("/receive_heart_beat", BEAT)).json() == {"exist": False}
    assert (await fleet.post("/list_models")).json() == {"models": []}


async def test_unregistered_worker_gets_no_more_requests(fleet):
    await fleet.add(1, answering())
    reply = await fleet.post("/unregister_worker", {"worker_name": address_of(1)})
    assert reply.json() == {"exist": True} and fleet.registry.models() == []


async def test_registration_without_a_status_asks_the_worker(fleet):
    fleet.workers.by_address[address_of(5)] = answering()
    body = {"worker_name": address_of(5), "check_heart_beat": False, "worker_status": None}
    assert (await fleet.post("/register_worker", body)).status_code == 200
    assert fleet.registry.models() == ["tiny"]


async def test_registration_of_an_unreachable_worker_is_refused(fleet):
    body = {"worker_name": address_of(6), "check_heart_beat": False, "worker_status": None}
    reply = await fleet.post("/register_worker", body)
    assert reply.status_code == 502 and address_of(6) in reply.json()["text"]


async def test_refresh_forgets_workers_without_a_status(fleet):
    for port in (1, 2):
        await fleet.add(port, answering())
    fleet.stop(1)
    assert (await fleet.post("/refresh_all_workers")).status_code == 200
    assert list(fleet.registry.workers()) == [address_of(2)]


TOKEN = {"Authorization": "Bearer secret-1"}
REGISTRATION = {"worker_name": address_of(1), "check_heart_beat": True, "worker_status": STATUS}
WORKER_PATHS = ["/register_worker", "/receive_heart_beat", "/unregister_worker"]


@pytest.mark.parametrize("path", WORKER_PATHS)
@pytest.mark.parametrize("authorization", [None, "Bearer secret-2", "secret-1", "é"])
async def test_wrong_token_is_refused_and_not_repeated(fleet, path, authorization):
    fleet.controller.token = "secret-1"
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    reply = await fleet.post(path, {**REGISTRATION, "queue_length": 0}, headers=headers)
    assert reply.status_code == 403 and "token" in reply.json()["text"] and "secret-1" not in reply.text
    assert fleet.registry.models() == []


@pytest.mark.parametrize("path", WORKER_PATHS)
async def test_right_token_is_accepted(fleet, path):
    fleet.controller.token = "secret-1"
    assert (await fleet.post(path, {**REGISTRATION, "queue_length": 0}, headers=TOKEN)).status_code == 200


async def test_clients_need_no_token(fleet):
    fleet.controller.token = "secret-1"
    assert (await fleet.post("/list_models")).status_code == 200


async def test_worker_of_another_machine_needs_a_token(fleet):
    remote = {**REGISTRATION, "worker_name": "http://10.0.0.7:21002"}
    reply = await fleet.post("/register_worker", remote)
    assert reply.status_code == 403 and "--registration-token" in reply.json()["text"]
    fleet.controller.token = "secret-1"
    assert (await fleet.post("/register_worker", remote, headers=TOKEN)).status_code == 200


async def test_link_local_address_is_refused_and_never_asked(fleet):
    fleet.controller.token = "secret-1"
    metadata = {**REGISTRATION, "worker_name": "http://169.254.169.254", "worker_status": None}
    assert (await fleet.post("/register_worker", metadata, headers=TOKEN)).status_code == 403
    assert not fleet.workers.seen


def test_flags_by_default_listen_on_localhost():
    args = controller.parse_arguments([])
    assert (args.host, args.port, args.dispatch_method) == ("localhost", 21001, "shortest_queue")


@pytest.mark.parametrize("flags", [["--registration-token", "zwei\nZeilen"], ["--max-body-mib", "nan"]])
def test_main_bad_flag_is_a_user_error(flags, capsys):
    assert controller.main(flags) == 2
    assert capsys.readouterr().err.startswith("error: ")


async def test_openapi_document_has_upstreams_paths(fleet):
    paths = create_app(fleet.controller).openapi()["paths"]
    upstream = {"/register_worker", "/refresh_all_workers", "/list_models", "/get_worker_address"}
    upstream |= {"/receive_heart_beat", "/worker_generate_stream", "/worker_get_status"}
    assert upstream <= set(paths) and all("post" in paths[path] for path in upstream)
