"""What traces of online objectives are checked by, whatever the model (online_traces.py, flow_traces.py)."""

import torch
from online_formulas import FORMULAS
from support import check
from trace_checks import near


def micro_losses(name, tensors, trace, params):
    """The mean of the micro-steps' losses."""
    losses, begin = [], 0
    for count in trace["micro_groups"].tolist():
        part = {key: value[begin : begin + count].double() for key, value in (trace | tensors).items()
                if value.dim() > 0 and key != "micro_groups"}
        losses.append(FORMULAS[name](part, params))
        begin += count
    return torch.stack(losses).mean()


def check_gradient(trace, loss, network, relative=1e-3):
    """The traced gradient norm is that of the network under the loss."""
    network.zero_grad()
    loss.backward()
    norm = torch.stack([p.grad.double().norm() for p in network.parameters() if p.grad is not None]).norm()
    print(f"  gradient norm {norm:.5g}, relative error {abs(trace['grad_norm'] / norm - 1):.0e}")
    check(norm > 0, "there is no gradient")
    near(trace["grad_norm"], norm, "gradient norm", relative)
