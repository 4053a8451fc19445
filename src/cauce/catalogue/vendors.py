"""Whose price list holds for a provider: told by where it is reached. Vendors have the names that `facts.json` gives them."""

import ipaddress
from urllib.parse import urlsplit

HERE = "here"
"""The vendor of servers on this machine or in its own network: they have no list."""

UNKNOWN = ""
"""The vendor of a server out there that nobody knows: it has no list, but serves models that others know."""

_HOSTS = {
    "api.anthropic.com": "anthropic",
    "api.arcee.ai": "arcee",
    "api.avian.io": "avian",
    "api.cerebras.ai": "cerebras",
    "api.cloudflare.com": "cloudflare",
    "api.cohere.ai": "cohere",
    "api.cohere.com": "cohere",
    "api.deepseek.com": "deepseek",
    "api.doubleword.ai": "doubleword",
    "api.fireworks.ai": "fireworks",
    "api.githubcopilot.com": "github-copilot",
    "api.groq.com": "groq",
    "api.meta.ai": "meta",
    "api.minimax.com": "minimax",
    "api.minimax.io": "minimax",
    "api.minimaxi.com": "minimax",
    "api.minimaxi.io": "minimax",
    "api.mistral.ai": "mistral",
    "api.moonshot.ai": "moonshotai",
    "api.moonshot.cn": "moonshotai",
    "api.novita.ai": "novita",
    "api.openai.com": "openai",
    "api.openrouter.ai": "openrouter",
    "api.perplexity.ai": "perplexity",
    "api.quicksilverpro.io": "quicksilverpro",
    "api.together.ai": "together",
    "api.together.xyz": "together",
    "api.typesafe.ai": "typesafe",
    "api.voyageai.com": "voyageai",
    "api.x.ai": "x-ai",
    "api.z.ai": "zai",
    "inference.baseten.co": "baseten",
    "oai.endpoints.kepler.ai.cloud.ovh.net": "ovhcloud",
    "open.bigmodel.cn": "zhipuai",
    "openrouter.ai": "openrouter",
}
_UNDER = {
    ".amazonaws.com": "aws",
    ".api.cognitive.microsoft.com": "azure",
    ".azure-api.net": "azure",
    ".azuredatabricks.net": "databricks",
    ".cloud.databricks.com": "databricks",
    ".cognitiveservices.azure.com": "azure",
    ".gcp.databricks.com": "databricks",
    ".googleapis.com": "google",
    ".modal.direct": "modal",
    ".modal.run": "modal",
    ".openai.azure.com": "azure",
    ".services.ai.azure.com": "azure",
}
_HUGGINGFACE = "router.huggingface.co"
_OF_KIND = {"anthropic": "anthropic", "gemini": "google"}
"""Kinds of providers that one maker invented: who else speaks its wire, and is out there, most likely passes on to it."""

_HERE_NAMES = ("localhost", "host.docker.internal")
_HERE_ENDINGS = (".localhost", ".local", ".internal", ".lan", ".home.arpa")


def vendor_of(kind: str, base_url: str) -> str:
    """The vendor of the provider of that kind at `base_url`; `HERE` or `UNKNOWN` where there is no price list."""
    url = urlsplit(base_url)
    host = (url.hostname or "").rstrip(".")
    if host in _HOSTS:
        return _HOSTS[host]
    if host == _HUGGINGFACE:
        return f"huggingface_{url.path.strip('/').partition('/')[0]}"
    for ending, vendor in _UNDER.items():
        if host.endswith(ending):
            return vendor
    return HERE if _is_here(host) else _OF_KIND.get(kind, UNKNOWN)


def _is_here(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host in _HERE_NAMES or host.endswith(_HERE_ENDINGS)
