/* The activation functions of MLPs, on vectors. */
#pragma once
#include "model.h"

INLINE f32x16 sigmoid(f32x16 x) { return 1.0f / (1.0f + vector_exp(-x)); }

/* The error function within 1.5e-7 (Abramowitz & Stegun 1964, 7.1.26). */
INLINE f32x16 error_function(f32x16 x) {
    f32x16 magnitude = vector_abs(x), t = 1.0f / (1.0f + 0.3275911f * magnitude);
    f32x16 p = fused_madd(splat(1.061405429f), t, splat(-1.453152027f));
    p = fused_madd(p, t, splat(1.421413741f));
    p = fused_madd(p, t, splat(-0.284496736f));
    p = fused_madd(p, t, splat(0.254829592f));
    f32x16 y = 1.0f - p * t * vector_exp(-magnitude * magnitude);
    return blend(x < 0.0f, -y, y);
}

/* x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2 */
INLINE f32x16 gelu_tanh(f32x16 x) {
    return x * sigmoid(1.595769122f * fused_madd(x * x * x, splat(0.044715f), x));
}

/* a x^2 + x / 2 above zero, (e^x - 1 - x) b + x / 2 below (Huang & Schlag 2024). */
INLINE f32x16 xielu(f32x16 x, float a, float b) {
    f32x16 below = blend(x < -1e-6f, x, splat(-1e-6f));
    f32x16 curve = blend(x > 0.0f, a * x * x, (vector_exp(below) - 1.0f - x) * b);
    return curve + 0.5f * x;
}

/* Of one number each. Not inlined, nor the next one: the registers that they need are those of the
 * loops around them. */
static __attribute__((noinline)) f32x16 activate(const Activation *activation, f32x16 x) {
    switch (activation->kind) {
    case GELU: return 0.5f * x * (1.0f + error_function(x * 0.707106781f));
    case GELU_TANH: return gelu_tanh(x);
    case RELU: return vector_max(x, (f32x16){});
    case RELU2: return vector_max(x, (f32x16){}) * vector_max(x, (f32x16){});
    case SIGMOID_OF: return sigmoid(x);
    case TANH: return 2.0f * sigmoid(2.0f * x) - 1.0f;
    case XIELU: return xielu(x, activation->a, activation->b);
    default: return x / (1.0f + vector_exp(-x));
    }
}

/* Of a gate and what it lets through. */
static __attribute__((noinline)) f32x16 activate_pair(const Activation *activation, f32x16 gate,
                                                      f32x16 up) {
    gate *= activation->gate_scale;
    if (activation->kind != CLAMPED_SWIGLU) return activate(activation, gate) * up;
    f32x16 limit = splat(activation->a);
    gate = blend(gate > limit, limit, gate);
    up = blend(up > limit, limit, blend(up < -limit, -limit, up));
    return gate * sigmoid(activation->b * gate) * (up + 1.0f);
}
