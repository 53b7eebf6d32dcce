"""The ONNX form of TiedEmbedding: one table, read by row and multiplied by."""

import numpy as np

from snukeras.export.onnx.graph import element_type
from snukeras.export.onnx.handlers import Context, Value, as_float, handles
from snukeras.layers import TiedEmbedding
from snukeras.network.topology import Call

# Words are the rows. For the projection the tile is read the other way: the vector drives the
# columns, and the words' rows give the sums.


@handles(TiedEmbedding)
def _tied_embedding(
    context: Context, call: Call, layer: TiedEmbedding, values: list[Value]
) -> list[Value]:
    graph, name = context.graph, call.name
    table = f"{layer.name}/embeddings"
    if table not in graph.initializers:  # the layer's other call has added it
        table = graph.constant(np.asarray(layer.embeddings), table)
    if not call.kwargs.get("reverse"):
        words = graph.node("Cast", [values[0].name], f"{name}/words", to=element_type("int32"))
        return [Value(graph.node("Gather", [table, words], f"{name}/vectors"), values[0].mask)]
    x = as_float(context, call, 0, values[0])
    projection = graph.node("Transpose", [table], f"{name}/projection", perm=[1, 0])
    x = graph.node("MatMul", [x, projection], f"{name}/product")
    if layer.bias is not None:
        bias = graph.constant(np.asarray(layer.bias), f"{name}/bias")
        x = graph.node("Add", [x, bias], f"{name}/logits")
    return [Value(x, values[0].mask)]
