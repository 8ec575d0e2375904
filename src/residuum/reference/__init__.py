"""The definitions of this field in plain NumPy: to be read, and to hold the fast code against.

Read in this order; each file needs only those before it:

    linear, activations, windows, convolution, pooling, normalisation    the layers
    unit                                 the residual unit they make, and its plain twin
    losses                               what training minimises
    initialisation                       where it starts
    optimisers                           how a step is made from a gradient
    problems, minimisers                 small problems, and the second-order methods that solve them

Every layer is a pair of pure functions, and nothing is kept between them:

    y = layer(x, parameters, ...)
    dx, dparameters, ... = layer_backward(dy, x, parameters, ...)

dy is the gradient of the loss by the layer's output, of y's shape. What comes back are the gradients by x and by
the parameters, in the order of the arguments and each of its argument's shape; a parameter that is None has None.
The gradient of a chain of layers is the chain of their backward functions, last layer first:
`unit.branch_backward` is such a chain.

Arrays are float64: images (N, C, H, W), features (N, D). Every function is gradient-checked numerically and equal
to PyTorch's in tests/reference. Nothing here is fast, and nothing here knows torch or the rest of the package.
"""
