"""What runs at each node: it trains on the node's own images, which stay there."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from field_app.network import train

app = ClientApp()


@app.train()
def train_here(message: Message, context: Context) -> Message:
    """Answer with the weights after training here, and of how many images they are."""
    weights = {name: array.numpy() for name, array in message.content["arrays"].items()}
    with np.load(str(context.node_config["data"])) as file:
        x, labels = file["x"], file["labels"]
    found = train(weights, x, labels)
    arrays = ArrayRecord({name: Array(array) for name, array in found.items()})
    count = MetricRecord({"num-examples": len(x)})
    return Message(RecordDict({"arrays": arrays, "metrics": count}), reply_to=message)
