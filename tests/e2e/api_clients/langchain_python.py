"""Asks the API through langchain-openai; prints what came as JSON. Arguments: base URL, image file."""

import base64
import json
import sys
from pathlib import Path

from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

url = f"data:image/png;base64,{base64.b64encode(Path(sys.argv[2]).read_bytes()).decode()}"
question = HumanMessage(
    [{"type": "text", "text": "What word is written in the picture?"}, {"type": "image_url", "image_url": {"url": url}}]
)
settings = {"base_url": sys.argv[1], "api_key": "none", "model": "shapes-H", "temperature": 0, "timeout": 300}
model = ChatOpenAI(max_tokens=30, **settings)
first = model.invoke([question])
streamed = [piece.content for piece in model.stream([question])]
again = model.invoke([question, first, HumanMessage("Describe the picture.")])
long = ChatOpenAI(max_tokens=40, extra_body={"ignore_eos": True, "min_tokens": 40}, **settings).invoke([question])
print(
    json.dumps(
        {
            "answer": first.content,
            "streamed": "".join(streamed),
            "second answer": again.content,
            "tokens with ignore_eos": long.usage_metadata["output_tokens"],
        }
    )
)
