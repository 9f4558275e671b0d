"""attn_sweep as its users meet it: passes, statuses, pairs, golden output."""
import csv
import json
import os
import pathlib
import subprocess
import time

from cases import alone, main
from sanitizer import unsanitized
from sweep_case import Case, FAULTY, ROOT, SWEEP, as_lines, rows_of, run


class Passes(Case):
    @alone
    def test_a_training_step_is_timed_where_there_is_a_backward_pass(self):
        done = self.sweep("--variants", "full,gru", "--n", "80", "--pass", "forward,forward_backward")
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = {(row["variant"], row["pass"]): row for row in rows_of(self.out)}
        self.assertEqual(len(rows), 4)
        forward, both = rows["full", "forward"], rows["full", "forward_backward"]
        self.assertEqual((forward["status"], both["status"]), ("ok", "ok"))
        self.assertAlmostEqual(float(both["flops"]) / float(forward["flops"]), 3.5, places=4)
        self.assertGreater(float(both["time_min_s"]), float(forward["time_min_s"]))
        self.assertIn("--pass forward_backward", both["command"])
        self.assertEqual(rows["gru", "forward"]["status"], "ok")
        self.assertEqual(rows["gru", "forward_backward"]["status"], "unsupported")
        self.assertIn("has no backward pass of its own", rows["gru", "forward_backward"]["reason"])

    def test_an_unknown_pass_is_refused(self):
        self.refused("--pass", "backward", say=("backward", "forward_backward", "decode"))


class Scopes(Case):
    @alone
    def test_a_layer_is_gated_and_timed_and_says_its_mixers_share(self):
        done = self.sweep("--variants", "full,fnet", "--n", "80", "--scope", "mixer,layer")
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = {(row["variant"], row["scope"]): row for row in rows_of(self.out)}
        self.assertEqual(len(rows), 4)
        for variant in ("full", "fnet"):
            mixer, layer = rows[variant, "mixer"], rows[variant, "layer"]
            self.assertEqual((mixer["status"], layer["status"]), ("ok", "ok"))
            self.assertEqual(mixer["mixer_share"], "")
            self.assertTrue(0 < float(layer["mixer_share"]) < 1, layer["mixer_share"])
            self.assertEqual(layer["err_scope"], "whole")
            self.assertGreater(float(layer["parameter_bytes"]), 5 * 4 * 128 * 128)
            self.assertEqual(layer["fid_skill"], "")
            self.assertIn("a whole layer", layer["fid_reason"])
            self.assertIn("--scope layer", layer["command"])
            self.assertNotIn("--scope", mixer["command"])
        # Wq, Wk, Wv, Wo and an MLP twice as wide: eight products by [128, 128] for each of 80 tokens.
        self.assertAlmostEqual(float(rows["full", "layer"]["flops"]) - float(rows["full", "mixer"]["flops"]), 16 * 80 * 128 * 128, -3)
        self.assertIn("scope=layer", done.stdout)
        self.assertIn("mixer's share", done.stdout)

    def test_what_no_layer_has_is_a_row_with_the_reason(self):
        done = self.sweep("--variants", "full,fnet", "--n", "64", "--scope", "layer", "--kv-len", "64,80")
        rows = {(row["variant"], row["kv_len"]): row for row in rows_of(self.out)}
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(rows["full", "80"]["status"], "unsupported")
        self.assertIn("in a layer needs q_len equal to kv_len", rows["full", "80"]["reason"])
        self.assertEqual(rows["full", "64"]["status"], "ok")

    def test_a_layer_has_a_forward_pass_only(self):
        self.sweep("--variants", "full", "--n", "64", "--scope", "layer", "--pass", "forward_backward")
        (row,) = rows_of(self.out)
        self.assertEqual(row["status"], "unsupported")
        self.assertIn("full in a layer has no backward pass", row["reason"])

    def test_layers_are_timed_beside_each_other(self):
        self.sweep("--variants", "linear", "--n", "64", "--scope", "layer", "--against", "full")
        rows = {row["variant"]: row for row in rows_of(self.out)}
        self.assertEqual((rows["linear"]["status"], rows["linear"]["against"]), ("ok", "full"))
        self.assertGreater(float(rows["linear"]["ratio_median"]), 0)

    def test_budgets_for_an_error_are_those_of_the_mixer(self):
        done = self.sweep("--variants", "local", "--n", "64", "--scope", "layer", "--iso-error", "0.5", "--input", "iid:0.1")
        (row,) = rows_of(self.out)
        self.assertEqual((row["status"], row["scope"]), ("ok", "layer"), done.stderr)

    def test_an_unknown_scope_is_refused(self):
        self.refused("--scope", "block", say=("block", "mixer, layer"))


class Statuses(Case):
    def outcome(self, variant, *arguments):
        done = self.sweep("--plugin", FAULTY, "--variants", variant, "--n", "64", *arguments)
        (row,) = rows_of(self.out)
        return done, row

    def test_a_sound_cell_is_ok_and_has_its_figures(self):
        done, row = self.outcome("faulty")
        self.assertEqual((done.returncode, row["status"]), (0, "ok"), done.stderr)
        self.assertGreater(float(row["time_median_s"]), 0)
        self.assertEqual(row["family"], "test")
        self.assertEqual(len(row["samples_s"].split(";")), 2)

    @unsanitized
    def test_a_crash_ends_one_row(self):
        done, row = self.outcome("faulty:how=crash")
        self.assertEqual((done.returncode, row["status"]), (1, "crashed"))
        self.assertIn("signal 11", row["reason"])
        self.assertEqual(row["time_median_s"], "")

    def test_an_exception_is_a_crash_with_its_words(self):
        done, row = self.outcome("faulty:how=raise")
        self.assertEqual((done.returncode, row["status"]), (1, "crashed"))
        self.assertIn("thrown on purpose", row["reason"])

    def test_leaving_the_process_is_a_crash(self):
        done, row = self.outcome("faulty:how=leave")
        self.assertEqual((done.returncode, row["status"]), (1, "crashed"))
        self.assertIn("no answer", row["reason"])

    def test_a_hang_is_timed_out(self):
        begin = time.monotonic()
        done, row = self.outcome("faulty:how=hang", "--timeout", "1")
        self.assertEqual(row["status"], "timed_out")
        self.assertLess(time.monotonic() - begin, 60)

    @unsanitized
    def test_endless_allocation_is_out_of_memory(self):
        done, row = self.outcome("faulty:how=hog", "--memory-limit", "1G")
        self.assertEqual(row["status"], "out_of_memory")

    def test_a_wrong_result_is_inaccurate_and_has_no_time(self):
        done, row = self.outcome("faulty:how=wrong")
        self.assertEqual((done.returncode, row["status"]), (1, "inaccurate"))
        self.assertAlmostEqual(float(row["err_max_abs"]), 0.5, places=5)
        self.assertEqual(row["time_median_s"], "")

    def test_a_forgotten_row_is_inaccurate(self):
        done, row = self.outcome("faulty:how=forget")
        self.assertEqual((done.returncode, row["status"]), (1, "inaccurate"))
        self.assertEqual(row["err_max_abs"], "inf")

    def test_a_child_left_behind_does_not_hold_the_sweep(self):
        done, row = self.outcome("faulty:how=fork")
        self.assertEqual(row["status"], "ok")

    def test_an_undefined_problem_is_unsupported_with_the_reason(self):
        done = self.sweep("--variants", "linformer,full", "--n", "32", "--causal", "yes")
        rows = {row["variant"]: row for row in rows_of(self.out)}
        self.assertEqual((rows["linformer"]["status"], rows["full"]["status"]), ("unsupported", "ok"))
        self.assertIn("no causal form", rows["linformer"]["reason"])
        self.assertEqual(done.returncode, 0)

    def test_only_refused_cells_is_exit_5(self):
        self.assertEqual(self.sweep("--variants", "linformer", "--n", "32", "--causal", "yes").returncode, 5)

    def test_the_budget_skips_what_it_does_not_reach(self):
        self.sweep("--variants", "copy_v,mean_v", "--n", "64..512*2", "--budget", "0.0001")
        statuses = {row["status"] for row in rows_of(self.out)}
        self.assertIn("skipped_budget", statuses)
        self.assertEqual(len(rows_of(self.out)), 8)

    def test_what_the_budget_skipped_is_measured_on_resume(self):
        grid = ["--variants", "copy_v,mean_v", "--n", "64..256*2"]
        self.sweep(*grid, "--budget", "0.0001")
        self.assertIn("skipped_budget", {row["status"] for row in rows_of(self.out)})
        done = self.sweep(*grid, "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([row["status"] for row in rows_of(self.out)], ["ok"] * 6)
        self.assertEqual(len({(row["variant"], row["q_len"]) for row in rows_of(self.out)}), 6)

    def test_a_resumed_sweep_with_nothing_to_do_exits_as_its_rows_say(self):
        for arguments, code in ((["--plugin", FAULTY, "--variants", "faulty:how=crash"], 1),
                                (["--variants", "linformer", "--causal", "yes"], 5), (["--variants", "copy_v"], 0)):
            for mode in ("--force", "--resume"):
                self.assertEqual(self.sweep(*arguments, "--n", "64", mode).returncode, code, (arguments, mode))

    def drop_rows(self, *variants):
        """As if the sweep had been interrupted before these."""
        path = pathlib.Path(self.out)
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(line for line in lines if not any(line.startswith(f"2,{v},".encode()) for v in variants)))

    def test_a_resumed_sweep_tells_of_all_its_rows(self):
        grid = ["--plugin", FAULTY, "--variants", "copy_v,faulty:how=crash,mean_v", "--n", "64"]
        self.assertEqual(self.sweep(*grid).returncode, 1)
        self.drop_rows("mean_v")
        done = self.sweep(*grid, "--resume")
        self.assertEqual(done.returncode, 1, done.stderr)  # as the file says, not as this call alone would
        table = done.stdout.splitlines()
        for name in ("copy_v", "mean_v", "faulty"):
            self.assertEqual(sum(name in line for line in table), 1, done.stdout)
        self.assertIn("1 new, 2 from before", table)
        (kept,) = [line for line in table if line.lstrip().startswith("copy_v")]
        row = next(row for row in rows_of(self.out) if row["variant"] == "copy_v")
        self.assertIn(f"{float(row['roof_fraction']):.2f} {row['roof_binds']}", kept)

    def test_a_csv_that_another_program_saved_is_gone_on_with(self):
        grid = ["--variants", "copy_v,mean_v", "--n", "64"]
        self.assertEqual(self.sweep(*grid).returncode, 0)
        self.drop_rows("mean_v")
        text = pathlib.Path(self.out).read_bytes()
        pathlib.Path(self.out).write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
        done = self.sweep(*grid, "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.out, newline="", encoding="utf-8-sig") as file:
            self.assertEqual([row["variant"] for row in csv.DictReader(file)], ["copy_v", "mean_v"])

    def test_the_budget_ends_the_search_for_an_error_too(self):
        done = self.sweep("--variants", "local", "--n", "64", "--iso-error", "0.5", "--input", "iid:0.1", "--budget", "0.0001")
        self.assertEqual([row["status"] for row in rows_of(self.out)], ["skipped_budget"])
        self.assertNotIn("searching", done.stderr)

    def test_a_broken_variant_does_not_disturb_its_neighbours(self):
        done = self.sweep("--plugin", FAULTY, "--variants", "faulty:how=crash,copy_v,full", "--n", "64")
        self.assertEqual({row["variant"]: row["status"] for row in rows_of(self.out)},
                         {"faulty": "crashed", "copy_v": "ok", "full": "ok"})


class Pairs(Case):
    @alone
    def test_a_variant_is_timed_beside_the_reference(self):
        done = self.sweep("--variants", "mean_v,full", "--n", "256", "--against", "full", "--samples", "6", "--rounds", "2")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("vs full, paired", done.stdout)
        rows = {row["variant"]: row for row in rows_of(self.out)}
        self.assertEqual(set(rows), {"mean_v", "full"})
        for row in rows.values():
            own, other = ([float(s) for s in row[column].split(";")] for column in ("samples_s", "against_s"))
            self.assertEqual((len(own), len(other), row["against"]), (6, 6, "full"))
            ratios = sorted(a / b for a, b in zip(own, other))
            self.assertAlmostEqual(float(row["ratio_median"]) / ((ratios[2] + ratios[3]) / 2), 1, places=3)
            self.assertAlmostEqual(float(row["ratio_ci_low"]) / ratios[0], 1, places=3)
            self.assertAlmostEqual(float(row["ratio_ci_high"]) / ratios[-1], 1, places=3)
            self.assertIn("--against full", row["command"])
        self.assertLess(float(rows["mean_v"]["ratio_median"]), 0.7)
        self.assertTrue(0.5 < float(rows["full"]["ratio_median"]) < 2, rows["full"]["ratio_median"])  # against itself

    def test_the_reference_has_a_row_of_its_own(self):
        self.sweep("--variants", "copy_v", "--n", "64", "--against", "local:left=3,right=4")
        self.assertEqual({row["variant"]: row["against"] for row in rows_of(self.out)},
                         dict.fromkeys(("copy_v", "local"), "local:left=3,right=4,sinks=0"))

    def test_a_sweep_without_pairs_has_none(self):
        self.sweep("--variants", "copy_v", "--n", "64")
        (row,) = rows_of(self.out)
        self.assertEqual([row[c] for c in ("against", "against_s", "ratio_median", "ratio_ci_low", "ratio_ci_high")], [""] * 5)

    def test_unknown_references_are_refused(self):
        self.refused("--against", "ful", say=("--against", "ful", "full"))
        self.refused("--against", "full,local", say=("--against",))
        self.refused("--against", "sparse", say=("--against",))

    def test_a_reference_that_cannot_run_is_a_row_with_the_reason(self):
        done = self.sweep("--variants", "full", "--n", "32", "--causal", "yes", "--against", "linformer")
        rows = {row["variant"]: row for row in rows_of(self.out)}
        self.assertEqual(rows["full"]["status"], "unsupported")
        self.assertIn("--against linformer:", rows["full"]["reason"])
        self.assertIn("no causal form", rows["full"]["reason"])
        self.assertEqual(done.returncode, 5)

    def test_nothing_is_timed_against_a_wrong_result(self):
        done = self.sweep("--plugin", FAULTY, "--variants", "full", "--n", "64", "--against", "faulty:how=wrong")
        rows = {row["variant"]: row for row in rows_of(self.out)}
        self.assertEqual((done.returncode, rows["full"]["status"], rows["full"]["time_median_s"]), (1, "inaccurate", ""))
        self.assertIn("--against faulty:how=wrong", rows["full"]["reason"])


class Output(Case):
    def golden(self, name, text):
        path = ROOT / "tests" / "golden" / name
        if os.environ.get("ATTN_APPROVE"):
            path.write_text(text)
        self.assertEqual(text, path.read_text(), f"ATTN_APPROVE=1 accepts the new {name}")

    def test_an_id_of_before_is_taken_and_its_name_of_today_said(self):
        for instead in (["--dry-run", "--n", "64"], ["--verify", "--property", "heads"]):
            done = run("--variants", "full_unfused", *instead)
            self.assertIn("attn_sweep: full_unfused is now called full@unfused\n", done.stderr)
        done = run("--variants", "full,full@unfused", "--dry-run", "--n", "64")
        self.assertEqual(done.stderr, "")

    def test_the_columns_are_golden_and_head_the_csv(self):
        self.sweep("--variants", "copy_v", "--n", "64")
        header = pathlib.Path(self.out).read_text().splitlines(keepends=True)[0]
        self.golden("header.csv", header)
        context = json.loads((self.folder / "a.context.json").read_text())
        self.assertEqual(context["csv_schema"], 2)
        self.golden("columns.json", as_lines(context["columns"]))
        self.assertEqual([column["name"] for column in context["columns"]], header.strip().split(","))
        self.assertEqual(header.strip().split(","), [line.split()[0] for line in run("--columns").stdout.splitlines()])

    def test_the_tables_are_the_readme(self):
        path = ROOT / "variants" / "README.md"
        before, _, rest = path.read_text().partition("| family |")
        between = rest.partition("\n\n")[2].partition("| variant |")[0]
        text = before + run("--list=md").stdout + "\n" + between + run("--explain", "all", "--format", "md").stdout
        if os.environ.get("ATTN_APPROVE"):
            path.write_text(text)
        self.assertEqual(text, path.read_text(), "ATTN_APPROVE=1 writes the new variants/README.md")

    def test_the_page_in_the_readme_runs_as_a_plugin(self):
        self.sweep("--plugin", os.environ["ATTN_README_PAGE"], "--variants", "my_window:reach=9", "--n", "200")
        (row,) = rows_of(self.out)
        self.assertEqual((row["status"], row["family"]), ("ok", "plugin"))

    def test_a_page_that_new_variant_wrote_is_measured_at_once(self):
        self.sweep("--plugin", os.environ["ATTN_NEW_PAGE"], "--variants", "full,fresh_idea", "--n", "200")
        self.assertEqual({row["variant"]: row["status"] for row in rows_of(self.out)}, {"full": "ok", "fresh_idea": "ok"})

    def test_the_list_is_json_on_request(self):
        entries = json.loads(run("--list=json").stdout)
        ids = [entry["id"] for entry in entries]
        ids += [f"{entry['id']}@{other['name']}" for entry in entries for other in entry["implementations"] if not other["guest"]]
        self.assertEqual(len(ids), len(set(ids)))
        self.assertEqual(sorted(ids), sorted(path.stem for path in (ROOT / "variants").glob("*/*.cpp")))

    def test_every_row_carries_the_command_that_repeats_it(self):
        self.sweep("--variants", "local:left=3", "--n", "64")
        (row,) = rows_of(self.out)
        again = str(self.folder / "again.csv")
        command = row["command"].replace("attn_sweep", SWEEP, 1) + f" --out {again}"
        self.assertEqual(subprocess.run(command, shell=True, capture_output=True).returncode, 0)
        (repeated,) = rows_of(again)
        for column in ("variant", "options", "q_len", "heads", "input", "seed", "threads", "isa", "err_max_abs"):
            self.assertEqual(row[column], repeated[column])

    def test_json_lines_hold_the_same_rows(self):
        jsonl = self.folder / "a.jsonl"
        self.sweep("--variants", "copy_v,full", "--n", "64", "--jsonl", str(jsonl))
        lines = [json.loads(line) for line in jsonl.read_text().splitlines()]
        rows = rows_of(self.out)
        self.assertEqual([line["variant"] for line in lines], [row["variant"] for row in rows])
        self.assertEqual(lines[0]["q_len"], 64)
        self.assertEqual(list(lines[0]), list(rows[0]))

    def test_the_context_stands_beside_the_csv(self):
        self.sweep("--variants", "copy_v", "--n", "64")
        context = json.loads((self.folder / "a.context.json").read_text())
        self.assertGreater(context["peaks"][0]["fma_gflops"], 0)
        for part in ("machine", "build", "libraries", "command_line", "date"):
            self.assertIn(part, context)

    def test_the_peaks_of_an_earlier_sweep_stand_where_the_machine_is_the_same(self):
        known, out = self.folder / "known.context.json", str(self.folder / "b.csv")
        self.sweep("--variants", "copy_v", "--n", "64", "--threads", "1", "--out", str(self.folder / "known.csv"))
        context = json.loads(known.read_text())
        context["peaks"][0]["fma_gflops"] = 12345.0
        known.write_text(json.dumps(context))
        done = self.sweep("--variants", "copy_v", "--n", "64", "--threads", "1", "--out", out, "--peaks", str(known))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads((self.folder / "b.context.json").read_text())["peaks"][0]["fma_gflops"], 12345.0)
        for told, words in (({**context, "machine": {**context["machine"], "cpu": "another"}}, "is of another machine: cpu is \"another\", here"),
                            ({}, "is no context of a sweep"), (None, "No such file")):
            known.unlink() if told is None else known.write_text(json.dumps(told))
            self.refused("--variants", "copy_v", "--n", "64", "--peaks", str(known), say=("--peaks: ", words))

    @alone
    def test_the_three_meters_agree(self):
        self.sweep("--variants", "default", "--n", "1024", "--heads", "8", "--causal", "both")  # each is defined in one of them at least
        rows = [row for row in rows_of(self.out) if row["status"] != "unsupported"]
        self.assertEqual({row["variant"] for row in rows}, {row["variant"] for row in rows_of(self.out)})
        for row in rows:
            self.assertEqual((row["variant"], row["status"], row["meters_agree"]), (row["variant"], "ok", "1"))

    def test_stdout_is_quiet_on_request_and_stderr_says_how_long_it_takes_and_has_a_line_a_cell(self):
        done = self.sweep("--variants", "copy_v", "--n", "64", "--quiet")
        self.assertEqual((done.stderr, done.stdout.count("\n")), ("", 1))
        done = self.sweep("--variants", "copy_v", "--n", "64,128", "--force")
        said = done.stderr.splitlines()
        self.assertRegex(said[0], r"^attn_sweep: the machine's peaks, then 2 cells, about .* m?s$")
        self.assertEqual([line[:5] for line in said[1:]], ["[1/2]", "[2/2]"])


if __name__ == "__main__":
    main()
