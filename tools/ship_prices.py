"""Write the price table that the wheel brings, from the genai-prices that is installed.

`./dev prices` after an upgrade of genai-prices in `constraints.txt`; `--check` only compares. Rates
stay the decimal texts that the list has. One model a line, so that a change of price is one line
in a review.
"""

import sys
from hashlib import sha256
from pathlib import Path

import msgspec

from meshnode.ingest.genai_list import genai_list
from meshnode.ingest.price_list import PriceList, Provider

TARGET = Path(__file__).parents[1] / "meshnode" / "ingest" / "shipped_prices.json"
WHOLE = (  # their models make nearly all usage; the others are looked up in genai-prices when met
    *("anthropic", "openai", "google", "deepseek", "mistral", "x-ai", "zhipuai", "zai"),
    *("moonshotai", "minimax", "meta", "cohere", "perplexity", "aws", "azure"),
)
PARTLY = {"openrouter": "qwen/"}  # no list has Alibaba's own prices


def shipped() -> PriceList:
    """Return what of genai-prices is shipped."""
    whole = genai_list()
    providers = tuple(_cut(one) for one in whole.providers)
    digest = sha256(msgspec.json.encode(providers, order="sorted")).hexdigest()[:8]
    version = f"{whole.version}-{digest}"
    return PriceList(version, whole.origin, providers)


def written(prices: PriceList) -> bytes:
    """Encode a list with a line a model."""
    text = msgspec.json.encode(prices, order="sorted")
    return text.replace(b'{"id":', b'\n{"id":') + b"\n"


def _cut(one: Provider) -> Provider:
    if one.id in WHOLE:
        return one
    prefix = PARTLY.get(one.id)
    kept = tuple(model for model in one.models if prefix and model.id.startswith(prefix))
    return msgspec.structs.replace(one, models=kept, listed=prefix)


def main() -> int:
    """Write the table, or compare it; returns the exit code."""
    text = written(shipped())
    if "--check" in sys.argv[1:]:
        if TARGET.read_bytes() != text:
            print("the shipped prices are not those of genai-prices: ./dev prices", file=sys.stderr)
            return 1
        return 0
    TARGET.write_bytes(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
