"""Finds the attentions of an ONNX graph, and says of each which tensors tell what it computes.

A layer's `wants` are names of tensors; given their values, `attention(values)` is what ran there.
"""
import numpy as np
from onnx import helper, numpy_helper

from captured import Attention, NotAttention, agrees, tidy
from onnxfused import FUSED

SOUGHT = ("MatMul or Einsum, scale, mask, Softmax, MatMul or Einsum", *(f"{domain or 'ai.onnx'} {op}" for domain, op in FUSED))
# What may lie between the product of queries and keys and the softmax, or behind it, and changes no element.
SAME = ("Identity", "Cast", "Dropout")
SHAPED = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")
FARTHEST = 12  # nodes between a softmax and its products
MOST_WAYS = 8  # products that may be the scores


class Graph:
    def __init__(self, model, folder):
        self.nodes = list(model.graph.node)
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.consumers = {}
        for node in self.nodes:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
        self.stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self.folder = folder
        self.opset = {entry.domain or "": entry.version for entry in model.opset_import}

    def constant(self, name):
        """The value of a tensor that the file holds; None of any other."""
        node = self.producer.get(name)
        if name in self.stored:
            return numpy_helper.to_array(self.stored[name], str(self.folder))
        if node is not None and node.op_type == "Constant":
            value = helper.get_attribute_value(node.attribute[0])
            return numpy_helper.to_array(value, str(self.folder)) if hasattr(value, "dims") else np.asarray(value)
        return None

    def is_product(self, node):
        """Of two tensors over a common axis."""
        return node is not None and (node.op_type in ("MatMul", "FusedMatMul") or (node.op_type == "Einsum" and len(node.input) == 2))


def attributes(node):
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def labels(node):
    """(left, right, out) of an Einsum."""
    equation = attributes(node)["equation"].decode().replace(" ", "")
    sides, _, out = equation.partition("->")
    left, _, right = sides.partition(",")
    if not out or "." in equation:
        raise NotAttention(f"the equation '{equation}' is not understood")
    return left, right, out


class Unfused:
    """softmax(scores) v, with its scores from a product of q and k, spread over nodes."""

    def __init__(self, graph, softmax, scores, steps, weighted, left):
        self.graph, self.softmax, self.scores, self.steps, self.weighted, self.left = graph, softmax, scores, steps, weighted, left
        self.layer = scores.name or softmax.name or softmax.output[0]
        self.q_peeled, self.k_peeled = self.peel(scores.input[0]), self.peel(scores.input[1])
        self.wants = [name for by, _, before in [*self.q_peeled, *self.k_peeled] for name in (by, before)]
        self.wants += [*scores.input, weighted.input[1 - left], weighted.output[0]]
        self.wants += [name for _, _, sides in steps for name in sides]

    def peel(self, name):
        """[(factor, node, tensor before it)] of the scalings of q or k that end at this tensor."""
        peeled = []
        for _ in range(FARTHEST):
            node = self.graph.producer.get(name)
            if node is None or node.op_type not in ("Mul", "Div"):
                break
            factor, before = node.input[1], node.input[0]
            if node.op_type == "Mul" and self.one_number(before):
                factor, before = before, factor
            peeled.append((factor, node, before))
            name = before
        return peeled

    def one_number(self, name):
        value = self.graph.constant(name)
        if value is not None:
            return value.size == 1
        node = self.graph.producer.get(name)
        return node is not None and node.op_type in ("Sqrt", "Pow", "Reciprocal")

    @staticmethod
    def unscaled(name, peeled, values):
        """(tensor, factor): the tensor before all its scalings by one number, and their product."""
        factor = 1.0
        for by, node, before in peeled:
            number = np.asarray(values[by], dtype=float)
            if number.size != 1:
                break
            factor *= float(number.flat[0]) if node.op_type == "Mul" else 1 / float(number.flat[0])
            name = before
        return values[name].astype(np.float32), factor

    def attention(self, values, batch):
        q, q_factor = self.unscaled(self.scores.input[0], self.q_peeled, values)
        k, k_factor = self.unscaled(self.scores.input[1], self.k_peeled, values)
        q, k, alpha = self.rows(q, k)
        shape = (*np.broadcast_shapes(q.shape[:-2], k.shape[:-2]), q.shape[-2], k.shape[-2])
        factor, mask, shape = self.replay(values, shape)
        axis = attributes(self.softmax).get("axis", -1 if self.graph.opset.get("", 0) >= 13 else 1)
        if axis % len(shape) != len(shape) - 1:
            raise NotAttention("its softmax is not over the keys")
        v, output = self.weighted_rows(values)
        if v.shape[-2] != k.shape[-2] or output.shape[-2] != q.shape[-2]:
            raise NotAttention("the products before and behind its softmax do not fit each other")
        scale = np.asarray(factor * alpha * q_factor * k_factor)
        return four_axes(Attention(self.layer, "MatMul, Softmax, MatMul", q, k, v, output, scale, mask), batch)

    def rows(self, q, k):
        """q [...,N,D] and k [...,M,D] of the product, and what it multiplies by."""
        if self.scores.op_type == "Einsum":
            left, right, out = labels(self.scores)
            row, column = out[-2:]
            if row not in left:
                raise NotAttention("the scores are those of keys by queries")
            inner = [label for label in left if label in right and label not in out]
            if len(inner) != 1 or row in right or column in left:
                raise NotAttention(f"'{left},{right}->{out}' is no product of queries and keys")
            outer = out[:-2]
            return arranged(q, left, outer + row + inner[0]), arranged(k, right, outer + column + inner[0]), 1.0
        told = attributes(self.scores)
        if told.get("transA") or told.get("transBatchA") or told.get("transBatchB"):
            raise NotAttention("its product is transposed on the left")
        return q, (k if told.get("transB") else k.swapaxes(-1, -2)), told.get("alpha", 1.0)

    def weighted_rows(self, values):
        """v [...,M,Dv] and the output [...,N,Dv]."""
        v, output = values[self.weighted.input[1 - self.left]], values[self.weighted.output[0]]
        if self.weighted.op_type != "Einsum":
            return v, output
        sides = labels(self.weighted)
        weights, other, out = sides[self.left], sides[1 - self.left], sides[2]
        outer, row, column = weights[:-2], weights[-2], weights[-1]
        wide = [label for label in other if label in out and label not in weights]
        if len(wide) != 1 or column in out:
            raise NotAttention(f"'{sides[0]},{sides[1]}->{out}' weighs no values")
        return arranged(v, other, outer + column + wide[0]), arranged(output, out, outer + row + wide[0])

    def replay(self, values, shape):
        """(factor, mask, shape) with softmax(factor q k^T + mask) of that shape, from the nodes between product and softmax."""
        factor, mask = np.ones(1), np.zeros(1, np.float32)
        for node, at, sides in self.steps:
            if node.op_type in SHAPED:
                ones = np.broadcast_to(np.ones(1), shape)
                target = reshaped(ones, node, [values[name] for name in sides]).shape
                factor, mask, shape = (np.broadcast_to(factor, shape).reshape(target) if factor.size > 1 else factor,
                                       np.broadcast_to(mask, shape).reshape(target) if mask.size > 1 else mask, target)
                continue
            side = values[sides[-1]]
            if node.op_type in ("Add", "Sub"):
                if node.op_type == "Sub" and at == 1:
                    raise NotAttention("the scores are subtracted")
                mask = mask + (side if node.op_type == "Add" else -side).astype(np.float32)
            elif node.op_type in ("Mul", "Div"):
                if node.op_type == "Div" and at == 1:
                    raise NotAttention("something is divided by the scores")
                by = side.astype(float) if node.op_type == "Mul" else 1 / side.astype(float)
                factor, mask = factor * by, (mask * by).astype(np.float32)
            else:  # Where
                chosen, other = values[sides[0]].astype(bool), side.astype(np.float32)
                mask = np.where(chosen, mask, other) if at == 1 else np.where(chosen, other, mask)
        return *self.one_scale(factor, mask), shape

    @staticmethod
    def one_scale(factor, mask):
        """A factor that is the same for all keys of a query; a key with the factor 0 must be hidden by the mask."""
        if factor.ndim < 2 or factor.shape[-2:] == (1, 1):
            return factor, None if not mask.any() else mask
        used = np.unique(factor[factor != 0])
        if used.size != 1 or (np.broadcast_to(mask, np.broadcast_shapes(mask.shape, factor.shape))[np.broadcast_to(
                factor == 0, np.broadcast_shapes(mask.shape, factor.shape))] > -9999).any():
            raise NotAttention("scores are multiplied by a tensor")
        return used, mask


class OneOf:
    """The first of several readings that gives the model's output; else the first one that is an attention at all."""

    def __init__(self, readings):
        self.readings, self.layer = readings, readings[0].layer
        self.wants = [name for reading in readings for name in reading.wants]

    def attention(self, values, batch):
        fitting, why = [], None
        for reading in self.readings:
            try:
                a = tidy(reading.attention(values, batch))
            except NotAttention as reason:
                why = why or reason
                continue
            fitting.append(a)
            if agrees(a):
                return a
        if not fitting:
            raise why
        return fitting[0]


def reshaped(array, node, sides):
    told = attributes(node)
    if node.op_type == "Reshape":
        wanted = [array.shape[i] if extent == 0 else extent for i, extent in enumerate(int(extent) for extent in sides[0])]
        return array.reshape(wanted)
    if node.op_type == "Flatten":
        axis = told.get("axis", 1)
        return array.reshape(int(np.prod(array.shape[:axis])), -1)
    axes = [int(axis) for axis in (sides[0] if sides else told.get("axes", []))]
    if node.op_type == "Unsqueeze":
        return np.expand_dims(array, tuple(axes))
    return np.squeeze(array, tuple(axes) or None)


def arranged(array, given, wanted):
    """Axes in the order of labels; those that it lacks have extent 1."""
    if sorted(set(given)) != sorted(given) or not set(given) <= set(wanted):
        raise NotAttention(f"the axes '{given}' are not '{wanted}'")
    array = array.transpose([given.index(label) for label in wanted if label in given])
    return array.reshape([array.shape[[label for label in wanted if label in given].index(label)] if label in given else 1 for label in wanted])


def four_axes(a, batch):
    """[...,N,D] as [B,H,N,D]. Of five axes the middle ones are heads in groups, or the first ones sequences; of three, the first counts the
    heads of all sequences."""
    rank = max(x.ndim for x in (a.q, a.k, a.v, a.output))
    outer = next(x.shape[:-2] for x in (a.q, a.output, a.v, a.k) if x.ndim == rank)
    if rank > 5:
        raise NotAttention(f"a tensor has {rank} axes")
    grouped = rank == 5 and all(x.ndim == 5 and x.shape[2] == 1 for x in (a.k, a.v))

    def lead(axes):
        if len(axes) == 3:
            return (axes[0], axes[1] * axes[2]) if grouped else (axes[0] * axes[1], axes[2])
        if len(axes) == 1 and axes[0] % batch == 0:
            return batch, axes[0] // batch
        return (1,) * (2 - len(axes)) + tuple(axes)

    def placed(x, whole=False):
        axes = x.shape[:-2]
        if len(axes) < len(outer) and np.prod(axes) == np.prod(outer):  # heads of all sequences counted as one
            axes = outer
        axes = (1,) * (len(outer) - len(axes)) + tuple(axes)
        x = x.reshape(*axes, *x.shape[-2:])
        if whole and any(extent != 1 for extent in axes):
            x = np.broadcast_to(x, (*outer, *x.shape[-2:]))
        return x.reshape(*(lead(x.shape[:-2]) if x.shape[:-2] != (1,) * len(outer) else (1, 1)), *x.shape[-2:])

    for name in ("mask", "scale"):
        value = getattr(a, name)
        if value is not None and np.ndim(value) > 2:
            setattr(a, name, placed(value, whole=True))
    a.q, a.k, a.v, a.output = (placed(x) for x in (a.q, a.k, a.v, a.output))
    return a


def up(graph, name, left=FARTHEST):
    """[(product, steps)] from which the scores `name` may come, steps in the order in which they are computed. Several where a bias is a
    product, too."""
    node = graph.producer.get(name)
    if node is None or left == 0:
        return []
    if graph.is_product(node):
        return [(node, [])]
    if node.op_type in SAME:
        return up(graph, node.input[0], left - 1)
    if node.op_type in SHAPED:
        ways = [(0, list(node.input[1:]))]
    elif node.op_type in ("Add", "Mul", "Sub", "Div"):
        ways = [(at, [node.input[1 - at]]) for at in (0, 1)]
    elif node.op_type == "Where":
        ways = [(at, [node.input[0], node.input[3 - at]]) for at in (1, 2)]
    else:
        return []
    return [(product, steps + [(node, at, sides)]) for at, sides in ways for product, steps in up(graph, node.input[at], left - 1)]


def down(graph, name, left=FARTHEST):
    """(product, which of its inputs) that the weights `name` reach; None where they reach none."""
    if left == 0:
        return None
    for node in graph.consumers.get(name, []):
        at = list(node.input).index(name)
        if graph.is_product(node) and (at == 0 or node.op_type == "Einsum"):
            return node, at
        if (node.op_type in (*SAME, "Reshape") and at == 0) or (node.op_type == "Where" and at == 2):
            found = down(graph, node.output[0], left - 1)
            if found is not None:
                return found
    return None


def find(model, folder):
    """Every attention of the model's main graph, in the order of its nodes."""
    graph = Graph(model, folder)
    layers = []
    for node in graph.nodes:
        fused = FUSED.get((node.domain if node.domain != "ai.onnx" else "", node.op_type))
        if fused is not None:
            layers.append(fused(node, attributes(node)))
        if node.op_type != "Softmax":
            continue
        ways, weighted = up(graph, node.input[0])[:MOST_WAYS], down(graph, node.output[0])
        if ways and weighted is not None:
            layers.append(OneOf([Unfused(graph, node, *way, *weighted) for way in ways]))
    return graph, layers
