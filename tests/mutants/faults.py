"""The faults. Each names the line that it changes by a piece of it that stands once in its file."""

from typing import NamedTuple


class Fault(NamedTuple):
    """A piece of a line of ``cellflow/``, what stands there instead, and the tests by default that must fail."""

    name: str
    file: str
    line: str
    fault: str
    tests: tuple[str, ...]


FAULTS = (
    Fault(
        "path noise", "paths.py", "self.sigma * torch.sqrt(t * (1 - t))", "self.sigma * (t * (1 - t))",
        ("test_paths.py::test_brownian_bridge_has_the_variance_of_pinned_brownian_motion",),
    ),
    Fault(
        "noise of an interval", "paths.py", "(a, b, c * duration.sqrt())", "(a, b, c * duration)",
        ("test_bridges.py::test_a_short_interval_holds_its_share_of_the_diffusion",),
    ),
    Fault(
        "velocity of a bend", "paths.py", "per_sample(u * (3 * u - 2), bend)", "per_sample(u * (3 * u - 1), bend)",
        ("test_bends.py::test_a_bent_pair_is_a_cubic_hermite_spline",),
    ),
    Fault(
        "spline slope", "pairing/curves.py", "(arriving * durations[1] + leaving * durations[0])",
        "(arriving * durations[0] + leaving * durations[1])",
        ("test_bends.py::test_the_whole_bend_follows_a_quadratic_exactly",),
    ),
    Fault(
        "clock of the mean",
        "pairing/mean_curve.py",
        "* clock(times, 1)[:, None]",
        "* (s[-1] / (times[-1] - times[0]))",
        ("test_mean_curve.py::test_along_a_line_the_mean_follows_a_monotone_cubic_in_time",),
    ),
    Fault(
        "limit of monotone slopes", "pairing/mean_curve.py", "limit = 3 *", "limit = 9 *",
        ("test_mean_curve.py::test_monotone_cubics_go_beyond_neighbouring_means_in_no_dimension",),
    ),
    Fault(
        "bridge target", "objectives/bridge.py", "missed.detach(), value=-1)", "missed.detach(), value=1)",
        ("test_bridges.py::test_the_velocity_target_keeps_no_noise_but_that_of_the_ends",),
    ),
    Fault(
        "unit of the score drift", "objectives/bridge.py", "2 / sigma**2 * spread",
        "2 / sigma * spread",
        ("test_bridges.py::test_the_exact_heads_minimise_bridge_matching",),
    ),
    Fault(
        "displacement of an interval", "objectives/draw.py", "per_sample(self.duration, velocity), velocity, value=-1)",
        "torch.ones_like(velocity), velocity, value=-1)",
        ("test_objectives.py::test_a_long_interval_asks_for_a_slow_field_and_counts_as_much",),
    ),
    Fault(
        "expected growth", "pairing/masses.py", "torch.softmax(a.log() + ends.gain.to(a), dim=0)",
        "torch.softmax(a.log() - ends.gain.to(a), dim=0)",
        ("test_weights.py::test_a_plan_that_keeps_mass_grows_as_expected",),
    ),
    Fault(
        "expected growth of an interval", "pairing/batches.py", "None if rate is None else rate * duration)",
        "rate)", ("test_weights.py::test_rates_are_per_model_time_and_each_interval_has_its_own",),
    ),
    Fault(
        "parts by weight", "pairing/masses.py", "known = shares.to(order.device)[order]",
        "known = shares.to(order.device)", ("test_weights.py::test_parts_are_drawn_by_weight",),
    ),
    Fault(
        "weights of a snapshot", "cells/states.py", "weight = self.weight * shares", "weight = shares",
        ("test_weights.py::test_snapshots_stand_for_the_weighted_population_in_every_tool",),
    ),
    Fault(
        "growth of the plans", "tl/sensitivity.py", "changed = coupling.scaled(factor)",
        "changed = coupling.scaled(1 / factor)",
        ("test_growth_prior.py::test_travel_that_is_taken_for_death_is_called_so",),
    ),
    Fault(
        "mass on the way", "objectives/draw.py", "torch.lerp(before, after, s)",
        "torch.lerp(after, before, s)",
        ("test_growth.py::test_the_exact_field_minimises_growth_matching",),
    ),
    Fault(
        "growth mass", "objectives/draw.py", "(per_sample(mass, squares) * squares).mean()", "squares.mean()",
        ("test_growth.py::test_masses_are_what_the_errors_are_weighted_by",),
    ),
    Fault(
        "growth of an interval", "objectives/growth.py", "(drawn.log_gain) - drawn.duration *",
        "(drawn.log_gain) - 1.0 *",
        ("test_growth.py::test_growth_within_a_short_interval_is_faster",),
    ),
    Fault(
        "pair masses", "pairing/masses.py", "(mass / found).log(), 0.0) for", "(found / mass).log(), 0.0) for",
        ("test_growth.py::test_masses_of_the_pairs_add_up_to_both_snapshots",),
    ),
    Fault(
        "noise into velocity", "objectives/matching.py", "b_slope * (x - a * noise) / b", "b_slope * (x - a * noise)",
        ("test_objectives.py::test_noise_of_the_path_turns_into_the_velocity",),
    ),
    Fault(
        "slope of a flow map", "objectives/flow_map_matching.py", "speed = mean + back.over(",
        "speed = mean - back.over(",
        ("test_flow_maps.py::test_the_true_map_has_no_error_where_a_teacher_knows_the_velocity",),
    ),
    Fault(
        "stop on the way of a jump", "objectives/flow_map_matching.py",
        "second + jumps.over(share, first - second)", "first + jumps.over(share, second - first)",
        ("test_flow_maps.py::test_the_true_map_is_its_own_teacher",),
    ),
    Fault(
        "growth of a jump", "integrate/jump.py", "gain + (t - s) * growth", "gain + growth",
        ("test_growing_maps.py::test_weights_of_jumps_add_up",),
    ),
    Fault(
        "growth of a pair at a jump", "objectives/flow_map.py", "known_gain(drawn.log_gain) / drawn.duration",
        "2 * known_gain(drawn.log_gain) / drawn.duration",
        ("test_growing_maps.py::test_pairs_alone_point_at_the_true_map",),
    ),
    Fault(
        "growth along a trajectory", "objectives/trajectory.py", "else end - begin", "else begin - end",
        ("test_growing_maps.py::test_trajectories_carry_weights_that_the_true_map_explains",),
    ),
    Fault(
        "length of a jump", "networks/flow_map.py", "x + per_sample(t - s, x)", "x + per_sample(t, x)",
        ("test_flow_maps.py::test_a_map_is_the_identity_on_the_diagonal_and_its_velocity_is_a_field",),
    ),
    Fault(
        "SDE sign", "integrate/sde.py", "per_sample(dt.abs(), x) * cast", "per_sample(dt, x) * cast",
        ("test_bridges.py::test_backward_in_time_the_source_comes_back",),
    ),
    Fault(
        "noise of a second step", "integrate/sde.py", "return x + (drift + more) / 2 + kick",
        "return x + (drift + more) / 2",
        ("test_bridges.py::test_diffusion_and_probability_flow_have_the_same_known_marginals",),
    ),
    Fault(
        "weights of noisy particles", "integrate/sde.py", "drift, dt * rate if", "drift, dt.abs() * rate if",
        ("test_growth.py::test_growing_gaussians_are_the_same_population_with_noise_and_without",),
    ),
    Fault(
        "sign of the log-density", "integrate/density.py", "return base + minus_integral",
        "return base - minus_integral",
        ("test_integrate.py::test_gaussian_to_gaussian_density",),
    ),
    Fault(
        "Hutchinson's mean", "integrate/density.py", "(2 * bits - 1).to(x), 1 / n_probes", "(2 * bits - 1).to(x), 1.0",
        ("test_integrate.py::test_more_probes_less_noise",),
    ),
    Fault(
        "plan.pull", "couplings/plan.py", 'self._backward(_shares(values, self._column_mass, side="target"))',
        "self._backward(values.double().reshape(len(values), -1))",
        ("test_plans.py::test_push_and_pull_are_conditional_matrix_products",),
    ),
    Fault(
        "Sinkhorn marginal", "couplings/potentials.py", "rows, columns = self._f + self._a.log(),",
        "rows, columns = self._f,",
        ("test_couplings.py::test_marginals_are_the_weights",),
    ),
    Fault(
        "relaxation", "couplings/potentials.py", "(1 + self.epsilon / self.relaxations[side])",
        "(1 + self.epsilon / (2 * self.relaxations[side]))",
        ("test_couplings.py::test_unbalanced_between_two_single_points_is_the_solution_by_hand",),
    ),
    Fault(
        "origins of a plan", "couplings/plan.py", "self._means(x0, self._forward, self._column_mass,",
        "self._means(x0, self._forward, self._column_mass.sort().values,",
        ("test_plans.py::test_origins_are_the_barycentric_means_of_the_plan_reversed",),
    ),
    Fault(
        "exact cost", "couplings/exact.py", "float(costs[i, j].mean())", "float(costs[i, j].sum())",
        ("test_couplings.py::test_the_cost_of_a_plan_is_what_its_pairs_cost",),
    ),
    Fault(
        "weights backward", "integrate/sde.py", "dt * rate if", "dt.abs() * rate if",
        ("test_growth.py::test_growing_gaussians_are_the_same_population_with_noise_and_without",),
    ),
    Fault(
        "fates of descendants", "tl/fate_ends.py", "np.exp(grows * (", "np.exp(0 * (",
        ("test_score.py::test_fates_are_those_of_descendants",),
    ),
    Fault(
        "origins", "tl/fate_ends.py", "np.where(cells.time < moment, 1.0, 0.0)", "np.ones(len(x))",
        ("test_score.py::test_origins_count_once_each",),
    ),
    Fault(
        "Wilson", "tl/fate_ends.py", "(z / (2 * n)) ** 2)", "(z / n) ** 2)",
        ("test_fate.py::test_wilson_agrees_with_scipy",),
    ),
    Fault(
        "interpolation weights", "estimators/prediction.py", "(after - at) / (after - before)",
        "(at - before) / (after - before)",
        ("test_tl.py::test_origins_and_weights_say_where_cells_come_from",),
    ),
    Fault(
        "decode offset", "cells/loadings.py", "[columns] - scores.mean(axis=0) @ matrix.T",
        "[columns] + scores.mean(axis=0) @ matrix.T",
        ("test_tl.py::test_genes_of_a_part_of_the_cells_are_decoded_too",),
    ),
    Fault(
        "velocity units", "estimators/snapshot_verbs.py", "return velocity * self.clock_.per_time",
        "return velocity / self.clock_.per_time",
        ("test_snapshot_flow.py::test_units_of_time_only_rescale_the_velocity",),
    ),
    Fault(
        "noise of portions", "estimators/portions.py", "generator_at(seed, self.number, device) if self.number else ",
        "", ("test_portions.py::test_noise_belongs_to_the_row_of_a_state",),
    ),
    Fault(
        "weights of portions", "estimators/portions.py", "-math.log(len(self.x))", "-math.log(len(some.x))",
        ("test_portions.py::test_states_are_carried_as_all_at_once",),
    ),
    Fault(
        "clock", "cells/clock.py", "return (time - self.times[0]) * self.per_time", "return time * self.per_time",
        ("test_pairing.py::test_the_clock_keeps_real_spacing_and_goes_back",),
    ),
    Fault(
        "landing by weight", "tl/descendants.py", "np.repeat(weight / weight.sum() / n_neighbors",
        "np.repeat(np.ones_like(weight) / len(weight) / n_neighbors",
        ("test_growth.py::test_descendants_are_counted_and_ancestors_are_not",),
    ),
    Fault(
        "noise that is suggested", "cells/suggest.py", "* whole / (2 * (stop - start))", "* whole / (stop - start)",
        ("test_diffusion.py::test_the_bridge_of_an_interval_has_a_twentieth_of_the_typical_cost_as_entropy",),
    ),
    Fault(
        "stages of Runge and Kutta", "integrate/tables.py", "b=(1 / 6, 1 / 3, 1 / 3, 1 / 6)",
        "b=(1 / 6, 1 / 6, 1 / 3, 1 / 3)",
        ("test_integrate.py::test_error_falls_with_the_declared_order",),
    ),
    Fault(
        "order of a distance", "metrics/distances.py", ".norm(dim=1) ** order), 1 / order)",
        ".norm(dim=1) ** order), 1.0)",
        ("test_distances.py::test_wasserstein_agrees_with_pot",),
    ),
    Fault(
        "conditions of pairs", "pairing/batches.py", "else self._condition[target]", "else self._condition[source]",
        ("test_pairing.py::test_conditions_follow_their_targets",),
    ),
    Fault(
        "guidance", "estimators/guidance.py", "torch.lerp(without, with_class, self.guidance)",
        "torch.lerp(with_class, without, self.guidance)",
        ("test_generation.py::test_guidance_is_a_line_from_no_class_through_the_class",),
    ),
    Fault(
        "averaging", "training/recipe.py", "min(self.ema, (step - 1) / (step + 8))", "(step - 1) / (step + 8)",
        ("test_training.py::test_the_average_is_the_moving_average_of_the_weights",),
    ),
    Fault(
        "optimiser restore", "training/checkpoint.py", '| {"state": slots})', '| {"state": {}})',
        ("test_training.py::test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit",),
    ),
    Fault(
        "accumulated gradients", "training/loop.py", 'found["loss"] / recipe.accumulate', 'found["loss"]',
        ("test_training.py::test_two_half_batches_accumulated_equal_one_batch",),
    ),
    Fault(
        "ends of reflow", "training/refit.py", "torch.cat([x0, starts]), torch.cat([ends, x1])",
        "torch.cat([x0, starts]), torch.cat([x1, ends])",
        ("test_refit.py::test_each_pair_keeps_the_condition_that_made_it",),
    ),
    Fault(
        "turns of Markovian fitting", "training/refit.py", "if turn % 2 == 0:", "if turn >= 0:",
        ("test_refit.py::test_markovian_fitting_alternates_between_the_ends",),
    ),
    Fault(
        "cells kept from the fit", "tl/new_cells.py", "np.isin(snapshots.time, times) & ~new, seed=seed",
        "np.isin(snapshots.time, times), seed=seed",
        ("test_validation.py::test_a_flow_that_knows_its_cells_by_heart_is_found_out",),
    ),
    Fault(
        "weights of new cells", "tl/new_cells.py", "found.shares()[-1] * population[1]", "population[1]",
        ("test_validation.py::test_growth_weighs_new_cells_too",),
    ),
    Fault(
        "staying earns nothing", "metrics/fates.py", "!= np.asarray(names)[None, :]", "!= np.asarray(['']) ",
        ("test_fate_overlap.py::test_only_what_a_cell_changes_into_counts",),
    ),
    Fault(
        "plans of clones backward", "report/lineage.py", "pairwise(snapshots)][::-1]", "pairwise(snapshots)]",
        ("test_report.py::test_fates_of_a_flow_in_closed_form_are_those_of_its_clones",),
    ),
    Fault(
        "size of a standard error", "metrics/intervals.py", "* math.sqrt(share / (1 - share))", "* 1.0",
        ("test_distances.py::test_the_standard_error_of_a_mean_is_known",),
    ),
    Fault(
        "label where mass lands", "metrics/persistence.py", "cells.clamp(min=0)[:, None]", "0 * cells[:, None]",
        ("test_persistence.py::test_balanced_plans_carry_what_does_not_fit_across",),
    ),
    Fault(
        "yes and no on the command line", "cli/kinds.py", "bool(_require(value, isinstance(value, bool)))",
        "bool(value)",
        (
            "test_command_settings.py::test_every_setting_takes_its_kind_and_refuses_others_in_a_sentence",
            "fuzz/test_command_lines.py::test_what_once_ended_badly_does_not",
        ),
    ),
    Fault(
        "digest of the tensors", "estimators/model_files.py", "if name in digests and not _is(file, digests[name]):",
        "if False:",
        ("test_crashes.py::test_tensors_of_another_model_are_refused",),
    ),
    Fault(
        "signals that stop", "training/run.py", '("SIGINT", "SIGTERM", "SIGHUP")', '("SIGINT",)',
        ("test_interrupts.py::test_there_are_three_of_them",),
    ),
    Fault(
        "lock of a folder", "lock.py", "raise CheckpointError(_refusal(folder)) from error", "pass",
        ("test_files.py::test_a_folder_is_refused_while_another_process_holds_it",),
    ),
    Fault(
        "finite weights", "training/reading.py", "odd = ~torch.isfinite(tensor)",
        "odd = torch.isnan(tensor) & False",
        ("test_untrusted.py::test_every_tensor_of_a_model_is_checked",),
    ),
    Fault(
        "files as private as the user has it", "training/checkpoint.py", "partial.chmod(mode)", "partial.chmod(0o600)",
        ("test_files.py::test_files_are_as_private_as_the_user_has_it",),
    ),
    Fault(
        "another representation", "cells/fingerprint.py",
        "if self.loadings is None or found is None or not _differ(self.loadings, found):", "if True:",
        ("test_fingerprint.py::test_another_pca_is_refused_by_its_loadings",),
    ),
    Fault(
        "bombs among pictures", "images/limits.py", "MAX_PIXELS = 89_478_485", "MAX_PIXELS = 10**12",
        ("test_hostile_images.py::test_a_bomb_can_be_left_out",),
    ),
    Fault(
        "cores of a container", "machine.py", "return max(1, min([count, affinity, *_quotas()]))", "return count",
        ("test_hostile_images.py::test_quotas_of_containers_are_respected",),
    ),
    Fault(
        "states that are not known", "shapes.py", "    if bool(torch.isfinite(x).all()):\n        return x\n",
        "    return x\n",
        ("fuzz/test_api.py::test_an_input_that_ended_badly_before_does_so_no_more",),
    ),
    Fault(
        "states in their many forms", "shapes.py",
        "values.is_nested or values.layout == torch.strided else values.to_dense()", "True else values",
        ("test_states.py::test_every_form_of_states_gives_the_same",),
    ),
    Fault(
        "states with gradients", "shapes.py", "values = given.detach()", "values = given",
        ("test_states.py::test_every_form_of_states_gives_the_same",),
    ),
    Fault(
        "states of text", "shapes.py", 'array.dtype.kind not in "biufc" or not array.ndim', "not array.ndim",
        ("fuzz/test_api.py::test_an_input_that_ended_badly_before_does_so_no_more",),
    ),
    Fault(
        "types of a signature", "signature.py", "    if _fits(value, hint):\n        return\n", "    return\n",
        ("test_signature.py::test_anything_else_is_refused_by_name",),
    ),
    Fault(
        "truth values as numbers", "signature.py", "return switch and hint is bool", "return True",
        ("test_signature.py::test_anything_else_is_refused_by_name",),
    ),
    Fault(
        "shapes of a batch", "batch.py", "if part is not None and (part.shape != shape or",
        "if part is not None and (False or",
        ("fuzz/test_api.py::test_an_input_that_ended_badly_before_does_so_no_more",),
    ),
    Fault(
        "seeds of numpy", "seeds.py", "_mix(_mix(int(seed)) + int(index))", "_mix(_mix(seed) + index)",
        ("fuzz/test_api.py::test_an_input_that_ended_badly_before_does_so_no_more",),
    ),
    Fault(
        "a branch at its very end", "datasets/simulated.py", "np.clip(x[:, 1], -_NEAREST, _NEAREST)", "x[:, 1]",
        ("fuzz/test_api.py::test_the_right_arguments_are_right",),
    ),
    Fault(
        "order of a given plan", "estimators/given_plans.py", "kept = masses[order[0]][:, order[1]]", "kept = masses",
        ("test_given_plans.py::test_a_plan_is_learned_from_as_it_is",),
    ),
    Fault(
        "masses of a row that are kept", "doors/plans.py", "np.lexsort((-masses.data, rows))",
        "np.lexsort((masses.data, rows))",
        ("test_doors.py::test_the_largest_masses_of_a_row_are_kept",),
    ),
    Fault(
        "way to a neighbour", "doors/scvelo.py", "way = x[j] - x[i]", "way = x[i] - x[j]",
        ("test_doors.py::test_the_graph_holds_cosines",),
    ),
    Fault(
        "costs of what is not known", "couplings/cost.py", "if not bool(torch.isfinite(side).all()):", "if False:",
        ("fuzz/test_api.py::test_an_input_that_ended_badly_before_does_so_no_more",),
    ),
)  # fmt: skip
"""At least one for each place where a sign, a unit or a weight is easily lost."""
