"""The log and the events of commands speak of the same things."""
from conftest import eventually


def test_lines_about_a_command_carry_its_event_id(fleet):
    answer = fleet.ask("/pin", {"instance_id": "demo-1", "location": "LocalCPUBackend", **fleet.prompt()})
    event = fleet.ask(f"/events/{answer['event_id']}")

    def lines():
        return [line for line in fleet.log() if line.get("event_id") == event["event_id"]]

    eventually(lambda: any(line["message"] == "command finished" for line in lines()))
    found = lines()
    assert {line["command"] for line in found} == {"pin"}
    assert found[0]["message"] == "command started" and found[-1]["message"] == "command finished"
    answered = {line["worker"] for line in found if line["message"] == "worker answered"}
    assert answered == {step["worker"] for step in event["steps"]} == {"demo-1:0", "demo-1:1"}
