"""A weightless tensor is taken for an ordinary one by everything that does not insist on its values."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from peft_inspect.run.weightless import WeightlessError, is_weightless, materialise, running, storage_key, weightless_like


def floats(*shape, dtype=torch.float32, requires_grad=False):
    return weightless_like(shape, dtype).requires_grad_(requires_grad)


@pytest.fixture
def x():
    return floats(4, 6)


VIEWS = {
    "t": lambda x: x.t(),
    "slice": lambda x: x[1:, ::2],
    "detach": lambda x: x.detach(),
    "data": lambda x: x.data,
    "view": lambda x: x.view(2, 12),
    "unbind": lambda x: x.unbind(0)[1],
    "split": lambda x: x.split([2, 4], dim=1)[1],
    "expand": lambda x: x[None].expand(3, -1, -1),
    "parameter": nn.Parameter,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_views_share_the_storage_and_have_the_layout_of_real_ones(x, view):
    seen, real = view(x), view(torch.ones(4, 6))
    assert storage_key(seen) == storage_key(x)
    assert (seen.shape, seen.stride(), seen.storage_offset()) == (real.shape, real.stride(), real.storage_offset())


def test_what_functions_are_mapped_over_has_the_storage_of_its_rows():
    x, keys = torch.ones(2, 3), []
    torch.vmap(lambda row: keys.append(storage_key(row)) or row)(x)
    assert keys == [storage_key(x)]


@pytest.mark.parametrize("make", [torch.clone, lambda x: x * 2, lambda x: x.to(torch.bfloat16), lambda x: x.t().contiguous()])
def test_what_is_computed_has_a_storage_of_its_own(x, make):
    assert storage_key(make(x)) != storage_key(x)


def test_assigning_data_moves_a_parameter_to_the_other_storage(x):
    parameter = nn.Parameter(floats(4, 6))
    parameter.data = x
    assert storage_key(parameter) == storage_key(x)


@pytest.mark.parametrize(
    "write",
    [lambda x: x.add_(1), lambda x: x.copy_(torch.ones(4, 6)), lambda x: x.mul_(x), lambda x: torch.exp(x, out=x), lambda x: x.normal_()],
)
def test_operations_in_place_return_the_tensor_that_went_in(x, write):
    assert write(x) is x


def test_shapes_change_in_place(x):
    assert x.unsqueeze_(0).shape == (1, 4, 6)
    assert x.squeeze_().t_().shape == (6, 4)


def test_boolean_masks_select_as_many_elements_as_are_true(x):
    mask = torch.arange(24).view(4, 6) % 3 == 0
    assert x[mask].shape == (8,)
    assert x.masked_select(mask).shape == (8,)
    assert x[mask.any(1)].shape == (4, 6)
    x[mask] = floats(8)
    with pytest.raises(IndexError):
        x[torch.ones(5, dtype=torch.bool)]


@pytest.mark.parametrize("experts", [8, 64])
def test_chosen_experts_are_distinct_per_token_and_every_expert_is_chosen(experts):
    chosen = floats(64, experts).softmax(-1).topk(4, dim=-1).indices
    assert not chosen.is_floating_point()
    assert not is_weightless(chosen)
    assert all(len(set(row)) == 4 for row in chosen.tolist())
    assert set(chosen.flatten().tolist()) == set(range(experts))


def test_other_choices_are_in_range_and_spread():
    scores = floats(12, 5)
    assert set(scores.argmax(-1).tolist()) == set(range(5))
    assert set(scores.max(dim=1).indices.tolist()) == set(range(5))
    assert set(torch.multinomial(scores, 1).flatten().tolist()) == set(range(5))
    assert all(sorted(row) == list(range(5)) for row in scores.argsort(-1).tolist())
    assert scores.topk(3, dim=0).indices.shape == (3, 5)
    assert int(scores.argmax()) == 0


def test_where_a_value_is_insisted_on_it_is_one(x):
    assert x.sum().item() == 1.0
    assert float(x[0, 0]) == 1.0
    assert x[0].tolist() == [1.0] * 6
    assert x.numpy().sum() == 24
    assert f"{x.mean():.1f}" == "1.0"
    assert torch.equal(x, x.clone())
    assert torch.allclose(x, x + 1)
    assert x.long().unique().tolist() == [1]


def test_values_are_finite_positive_and_not_nan(x):
    assert not torch.isnan(x).any()
    assert torch.isfinite(x).all()
    assert bool((x > 0).all())
    assert not (x == float("-inf")).any()


def test_integers_are_computed_for_real_and_mix_with_weightless_floats(x):
    ids = torch.tensor([[3, 1, 2]])
    with running():
        assert (ids == 1).nonzero().tolist() == [[0, 1]]
        assert F.embedding(ids, x).shape == (1, 3, 6)
        assert is_weightless(x + torch.arange(6))
        assert is_weightless(torch.cat([torch.ones(1, 6), x]))
        assert (torch.zeros(4, 6, dtype=torch.long).copy_(x)).tolist() == [[1] * 6] * 4


def test_small_constants_stay_real_and_large_ones_take_no_memory():
    with running():
        assert not is_weightless(torch.linspace(0, 1, 24))
        assert not is_weightless(torch.zeros(3, 3))
        assert not is_weightless(torch.zeros(1000, 1000, dtype=torch.bool))
        assert is_weightless(torch.zeros(1 << 20, 1 << 20))
        assert is_weightless(torch.rand(1 << 20, 1 << 10))
    assert not is_weightless(torch.zeros(1000, 1000))


def test_an_identity_as_wide_as_a_layer_takes_no_memory():
    with running():
        assert is_weightless(torch.eye(4096))
        assert is_weightless(torch.eye(1024, 512, dtype=torch.bfloat16))
        assert not is_weightless(torch.eye(4))
        assert not is_weightless(torch.eye(1024, dtype=torch.long))


def test_no_layer_is_left_out_at_random():
    """The draw that decides over a layer (layerdrop) is one."""
    with running():
        assert torch.rand([]).item() == 1
        assert torch.rand(1).tolist() == [1]
        assert torch.rand(5).unique().numel() == 5


def test_a_real_result_buffer_keeps_the_graph_of_what_is_added_to_it(x):
    """The buffer itself cannot lose its storage any more."""
    x.requires_grad_(True)
    with running():
        result = torch.zeros(4, 6).index_add_(0, torch.arange(4), x * 2)
        result.sum().backward()
    assert x.grad.shape == x.shape


def test_copies_stay_apart_and_keep_what_is_attached(x):
    parameter = nn.Parameter(x, requires_grad=False)
    parameter.note = "kept"
    copied = copy.deepcopy(parameter)
    assert isinstance(copied, nn.Parameter)
    assert (copied.note, copied.requires_grad, copied.shape) == ("kept", False, x.shape)
    assert storage_key(copied) != storage_key(x)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * 2 + x * 0


def attention(x, **options):
    heads = x.view(1, 4, 2, 3).transpose(1, 2)
    return F.scaled_dot_product_attention(heads, heads, heads, **options)


def recurrent(kind, x, **options):
    module = kind(6, 5, batch_first=True, **options)
    if is_weightless(x):
        module = kind(6, 5, batch_first=True, device="meta", **options)
        materialise(module)
    return module(x[None])[0]


def ctc(x):
    return F.ctc_loss(x[:, None].log_softmax(-1), torch.tensor([[1, 2]]), torch.tensor([4]), torch.tensor([2]))


def autocast(x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return x @ x.t()


OPERATIONS = {
    "linear": lambda x: F.linear(x, x),
    "matmul of batches": lambda x: torch.einsum("ij,kj->ik", x, x),
    "softmax": lambda x: x.softmax(-1),
    "layer norm": lambda x: F.layer_norm(x, (6,)),
    "group norm": lambda x: F.group_norm(x[None], 2),
    "batch norm": lambda x: F.batch_norm(x, torch.zeros(6), torch.ones(6), training=True),
    "attention": attention,
    "attention with mask": lambda x: attention(x, attn_mask=torch.ones(4, 4, dtype=torch.bool).tril()),
    "attention with dropout": lambda x: attention(x, dropout_p=0.5),
    "causal attention": lambda x: attention(x, is_causal=True),
    "dropout": lambda x: F.dropout(x, 0.5),
    "conv1d": lambda x: F.conv1d(x[None], x[:, :, None].expand(4, 6, 3)[:, :4]),
    "conv2d": lambda x: F.conv2d(x[None, None], x[None, None, :2, :2], stride=2),
    "transposed conv": lambda x: F.conv_transpose1d(x[None], x[:, :, None]),
    "fft": lambda x: torch.fft.irfft(torch.fft.rfft(x, dim=-1), n=6, dim=-1),
    "stft": lambda x: torch.stft(x.reshape(-1), 8, return_complex=True, window=torch.ones(8)).abs(),
    "interpolate": lambda x: F.interpolate(x[None, None], scale_factor=2, mode="bilinear"),
    "bicubic": lambda x: F.interpolate(x[None, None], size=(7, 9), mode="bicubic", antialias=True),
    "grid sample": lambda x: F.grid_sample(x[None, None], x[:, :2].view(1, 2, 2, 2), align_corners=False),
    "max pool": lambda x: F.max_pool1d(x[None], 2),
    "adaptive pool": lambda x: F.adaptive_avg_pool2d(x[None], (2, 3)),
    "unfold": lambda x: F.unfold(x[None, None], 2),
    "lstm": lambda x: recurrent(nn.LSTM, x, num_layers=2, bidirectional=True),
    "gru": lambda x: recurrent(nn.GRU, x),
    "ctc loss": ctc,
    "cross entropy": lambda x: F.cross_entropy(x, torch.tensor([0, 1, -100, 3])),
    "binary cross entropy": lambda x: F.binary_cross_entropy_with_logits(x, torch.zeros(4, 6)),
    "embedding bag": lambda x: F.embedding_bag(torch.tensor([0, 2, 1]), x, torch.tensor([0, 2]), mode="sum"),
    "cumsum": lambda x: x.cumsum(-1),
    "top k values": lambda x: x.topk(2).values,
    "gather": lambda x: x.gather(1, torch.zeros(4, 2, dtype=torch.long)),
    "scatter": lambda x: torch.zeros(4, 6).scatter(1, torch.zeros(4, 6, dtype=torch.long), x),
    "index add": lambda x: torch.zeros_like(x).index_add(0, torch.tensor([1, 0]), x[:2]),
    "index put": lambda x: torch.zeros_like(x).index_put((torch.tensor([0]),), x[0]),
    "masked scatter": lambda x: torch.zeros_like(x).masked_scatter(torch.ones(4, 6, dtype=torch.bool), x),
    "masked select": lambda x: x[torch.arange(4) > 1],
    "where": lambda x: torch.where(torch.arange(6) > 2, x, 0.0),
    "pad": lambda x: F.pad(x, (1, 2)),
    "repeat interleave": lambda x: x.repeat_interleave(torch.tensor([1, 2, 0, 3]), dim=0),
    "norm": lambda x: x.norm(dim=-1),
    "weight norm": lambda x: torch._weight_norm(x, x.norm(dim=1, keepdim=True), 0),
    "distances": lambda x: torch.cdist(x, x),
    "triangular": lambda x: x.tril(),
    "roll": lambda x: x.roll(1, 0),
    "vmap": torch.vmap(lambda row: row.softmax(0)),
    "checkpoint": lambda x: checkpoint(torch.exp, x, use_reentrant=False),
    "reentrant checkpoint": lambda x: checkpoint(torch.exp, x, use_reentrant=True),
    "custom function": Doubled.apply,
    "autocast": autocast,
    "inverse": lambda x: torch.linalg.inv(x[:, :4] + torch.eye(4)),
    "complex": lambda x: torch.view_as_real(torch.polar(x, x)),
    "in place on a view": lambda x: (y := x.clone(), y[1:].mul_(2))[0],
}


@pytest.mark.filterwarnings("ignore:The operator.*is not currently supported:UserWarning")
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_results_have_the_layout_of_real_ones_and_stay_connected(operation):
    """Forward and backward, as a real tensor would: same shape, dtype and gradient."""
    real = torch.rand(4, 6, requires_grad=True)
    weightless = floats(4, 6, requires_grad=True)
    expected = operation(real)
    with running():
        result = operation(weightless)
        result.float().sum().backward()
    expected.float().sum().backward()
    assert (result.shape, result.stride(), result.dtype, result.requires_grad) == (expected.shape, expected.stride(), expected.dtype, True)
    assert weightless.grad.shape == real.grad.shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_grouped_products_are_laid_out_as_real_ones(dtype):
    """Forward and backward meet all four forms between them."""
    offsets = torch.tensor([4, 8, 12, 16], dtype=torch.int32)
    real = [torch.rand(16, 32, dtype=dtype), torch.rand(4, 32, 64, dtype=dtype)]
    for operands in (real, [weightless_like(operand.shape, dtype) for operand in real]):
        for operand in operands:
            operand.requires_grad_(True)
        with running():
            made = torch._grouped_mm(*operands, offs=offsets)
            made.float().square().sum().backward()
        assert (made.shape, made.stride(), made.dtype) == ((16, 64), (64, 1), dtype)
        assert [operand.grad.shape for operand in operands] == [operand.shape for operand in operands]


def test_a_cut_is_a_cut():
    """What a real run would not connect is not connected."""
    weight = floats(6, 6, requires_grad=True)
    with running():
        assert not torch.tensor([weight.sum().item()]).requires_grad
        assert not torch.from_numpy(weight.detach().numpy()).requires_grad
        assert not (weight > 0).requires_grad
        with torch.no_grad():
            assert not (weight * 2).requires_grad
        with pytest.raises(RuntimeError, match="requires grad"):
            weight.numpy()


def test_the_fused_encoder_layer_passes_by_what_it_passes_by_with_weights():
    """In eval, torch runs the layer without calling its children: hooks on them see nothing."""
    with torch.device("meta"):
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).requires_grad_(False).eval()
    materialise(layer)
    with running():
        assert layer(floats(2, 3, 8)).shape == (2, 3, 8)


def test_comparisons_of_large_tensors_take_the_answer_for_one_value():
    logits = floats(4096, 4096)
    assert not torch.isnan(logits).any()
    assert (logits > 0).all()


def test_other_dispatch_modes_see_the_operations():
    with running(), FlopCounterMode(display=False) as counter:
        floats(128, 64) @ floats(64, 32)
    assert counter.get_total_flops() == 2 * 128 * 64 * 32


def test_an_operation_on_shapes_that_do_not_fit_is_the_error_it_would_be():
    with pytest.raises(RuntimeError, match=r"shapes cannot be multiplied|size mismatch"):
        floats(3, 4) @ floats(5, 6)


OUT_OF_RANGE = {
    "a token": (lambda x: F.embedding(torch.tensor([1, 4]), x), "index out of range in self: 1 to 4 for 4"),
    "a bag of tokens": (lambda x: F.embedding_bag(torch.tensor([[1, 4]]), x), "index out of range"),
    "a label": (lambda x: F.cross_entropy(x, torch.tensor([0, 1, 6, -100])), "Target 0 to 6 is out of bounds"),
    "a row": (lambda x: x[torch.tensor([-5])], "index -5 is out of bounds for dimension 0 with size 4"),
    "a column": (lambda x: x.gather(1, torch.tensor([[6]])), "out of range"),
    "placeholders": (lambda x: x.clone().index_put_((torch.arange(4) < 2,), x[:3]), "shape mismatch"),
}


@pytest.mark.parametrize(("operation", "said"), OUT_OF_RANGE.values(), ids=OUT_OF_RANGE)
def test_an_index_out_of_range_is_the_error_it_would_be(operation, said):
    """Weightless or not: the indices are real, and so is their fault."""
    for values in (torch.rand(4, 6), floats(4, 6)):
        with running(), pytest.raises((IndexError, RuntimeError), match=said if is_weightless(values) else None):
            operation(values)


def test_indices_within_range_are_let_through(x):
    with running():
        assert F.embedding(torch.tensor([], dtype=torch.long), x).shape == (0, 6)
        assert x[torch.tensor([-1, 3])].shape == (2, 6)
        assert F.cross_entropy(x, torch.tensor([0, 5, -100, 2])).shape == ()
        assert x.clone().index_put_((torch.tensor([0, 2]),), x[:1]).shape == (4, 6)


def test_an_operation_that_needs_data_is_named():
    huge = floats(1 << 20, 1 << 20)
    with pytest.raises(WeightlessError, match="numpy") as caught:
        huge.numpy()
    assert caught.value.operation == "numpy()"
    with pytest.raises(WeightlessError, match="unique"):
        huge.unique()


def test_huge_tensors_cost_nothing():
    weight = floats(1 << 20, 1 << 18, dtype=torch.bfloat16, requires_grad=True)
    with running():
        (floats(8, 1 << 18, dtype=torch.bfloat16) @ weight.t()).sum().backward()
    assert weight.grad.shape == weight.shape


def test_a_position_that_was_made_up_is_no_error_where_it_is_out_of_range(x):
    with running():
        below = (x > 2).sum(1, keepdim=True) - 1  # the bin that a value falls into: none, since what is counted reads as one
        assert below.unique().tolist() == [-1]
        assert x.gather(1, below).shape == (4, 1)
        with pytest.raises(IndexError):
            x.gather(1, torch.full((4, 1), -1))
