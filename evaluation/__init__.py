"""How good an answer is and how sure that is: metrics, intervals, the gate's rule, reports."""

from radloop.recipes import quiet as quiet  # before MONAI
