"""What runs beside the SuperLink: federated averaging (McMahan et al., AISTATS 2017)."""

from __future__ import annotations

import os

from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from safetensors.numpy import load_file, save_file

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Go on from the weights in `start`; write what comes of all rounds to `out`."""
    told = context.run_config
    nodes, rounds, out = int(told["nodes"]), int(told["rounds"]), str(told["out"])
    begun = {name: Array(array) for name, array in load_file(str(told["start"])).items()}
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
    result = strategy.start(grid, ArrayRecord(begun), num_rounds=rounds)
    if len(result.train_metrics_clientapp) != rounds:
        raise RuntimeError(f"{len(result.train_metrics_clientapp)} of {rounds} rounds had answers")
    save_file({name: array.numpy() for name, array in result.arrays.items()}, out + ".new")
    os.replace(out + ".new", out)
