"""LangChain over our clients."""

from __future__ import annotations

from kwai_middleware import bind_caller
from kwai_middleware.sandbox import Sandbox
from tests.support.callers import caller
from tests.support.clients.checks import ClientChecks, Make
from tests.support.clients.client import WORDS, Calls
from tests.support.clients.langchain_client import LangChain
from tests.support.flavours import HTTPX2, Flavour


def look_up(text: str) -> str:
    """Look something up."""
    return text


class TestLangChain(ClientChecks):
    kind = LangChain
    flavours = HTTPX2

    def test_a_tool_call(self, make: Make, flavour: Flavour, vendors: Sandbox, calls: Calls) -> None:
        """bind_tools works as ever; the record holds the call."""
        llm = make("openrouter").client.bind_tools([look_up])
        invoke = llm.ainvoke if flavour.asynchronous else llm.invoke
        with bind_caller(caller()):
            answer = flavour.run(invoke(WORDS, model="sandbox/tools"))
        assert [("look_up", {"text": WORDS})] == [(call["name"], call["args"]) for call in answer.tool_calls]
        [called] = calls.next().completions[0]["tool_calls"]
        assert "look_up" == called["function"]["name"]
        self.check_call(vendors.calls(wait=1)[0], "acme", "openrouter")
