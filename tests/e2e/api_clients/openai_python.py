"""Asks the API through OpenAI's Python package; prints what came as JSON. Arguments: base URL, image file."""

import base64
import json
import sys
from pathlib import Path

from openai import OpenAI

client = OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=300)
url = f"data:image/png;base64,{base64.b64encode(Path(sys.argv[2]).read_bytes()).decode()}"
question = {
    "role": "user",
    "content": [
        {"type": "text", "text": "What word is written in the picture?"},
        {"type": "image_url", "image_url": {"url": url}},
    ],
}
(model,) = [one.id for one in client.models.list()]
settings = {"model": client.models.retrieve(model).id, "temperature": 0}
first = client.chat.completions.create(messages=[question], max_tokens=30, **settings)
pieces = client.chat.completions.create(
    messages=[question], stream=True, stream_options={"include_usage": True}, **settings
)
streamed = [piece.choices[0].delta.content or "" for piece in pieces if piece.choices]
chat = [question, first.choices[0].message, {"role": "user", "content": "Describe the picture."}]
again = client.chat.completions.create(messages=chat, max_completion_tokens=20, **settings)
long = client.chat.completions.create(
    messages=[question], max_tokens=40, extra_body={"ignore_eos": True, "min_tokens": 40}, **settings
)
some = client.chat.completions.create(messages=[question], max_tokens=40, extra_body={"min_tokens": 12}, **settings)
drawn = [
    client.chat.completions.create(
        messages=[question], seed=3, **{**settings, "temperature": 1}, extra_body={"top_k": 5, "min_p": 0.1}
    )
    for _ in range(2)
]
print(
    json.dumps(
        {
            "answer": first.choices[0].message.content,
            "streamed": "".join(streamed),
            "second answer": again.choices[0].message.content,
            "tokens with ignore_eos": long.usage.completion_tokens,
            "tokens with min_tokens": some.usage.completion_tokens,
            "drawn alike": drawn[0].choices[0].message.content == drawn[1].choices[0].message.content,
        }
    )
)
