//! Hermes's own docker suite, row by row, against our image with the unmodified wheel: each test of its first supervised
//! release, and of the later rows those in which the init has a part. Each runs on the read-only cgroup mount of a plain
//! `docker run` and on a writable one. `tests/upstream` runs the suite itself; here a row waits for events, asks for more
//! than upstream does where we promise more, and runs without a checkout.
//!
//! | file and line at J | in | test |
//! |---|---|---|
//! | `test_main_invocation` 15 | S | `main_invocation_no_args` |
//! | 32 | S | `main_invocation_chat` |
//! | 46 | S | `main_invocation_bare_executable` |
//! | 59 | S | `main_invocation_bash` |
//! | 69 | S | `main_invocation_exit_code` |
//! | `test_tui_passthrough` 27 | S | `tui_passthrough_tty` |
//! | 58 | S | `tui_passthrough_help` |
//! | `test_zombie_reaping` 20 | S | `zombie_reaping` |
//! | `test_dashboard` 21 | S | `dashboard_default_off` |
//! | 33 | S | `dashboard_slot_down` |
//! | 57 | S | `dashboard_slot_up` |
//! | 78 | S | `dashboard_opt_in` |
//! | 102 | S | `dashboard_port` |
//! | 130 | S | `dashboard_restart` |
//! | 267 | A | `dashboard_oauth_gate` |
//! | 347 | A | `dashboard_insecure_ignored` |
//! | `test_gateway_run_supervised` 86 | S | `gateway_run_redirect` |
//! | 169 | S | `gateway_run_flag_opt_out` |
//! | 241 | S | `gateway_run_env_opt_out` |
//! | 279 | S | `gateway_run_no_recursion` |
//! | 346 | S | `gateway_run_dashboard_too` |
//! | 400 | S | `gateway_run_stdout_tee` |
//! | `test_profile_gateway` 88 | S | `profile_gateway_start_stop` |
//! | 118 | S | `profile_gateway_delete` |
//! | `test_s6_profile_gateway_integration` 45 | S | `s6_integration_register` |
//! | 84 | S | `s6_integration_unregister` |
//! | 150 | J | `s6_integration_dotfile` |
//! | `test_container_restart` 78 | S | `container_restart_running_survives` |
//! | 124 | S | `container_restart_stopped_stays` |
//! | 151 | S | `container_restart_stale_files` |
//! | 181 | J | `container_restart_live_autostart` |
//! | `test_user_flag_guard` 14 | J | `user_flag_guard_arbitrary` |
//! | 39 | J | `user_flag_guard_root` |
//! | 51 | J | `user_flag_guard_hermes` |
//! | `test_home_override_scripts` 17 | J | `home_override_workdir` |
//! | 43 | J | `home_override_dashboard_home` |
//! | 84 | J | `home_override_no_insecure` |
//! | `test_gateway_bootstrap_state` 36 | J | `gateway_bootstrap_state_starts` (what is written: `image::item_42`) |
//! | `test_log_dir_seed` 16 | J | `log_dir_seed` |
//! | `test_docker_exec_privilege_drop`, the files | J | `exec_privilege_drop_readable` (the shim: `image::item_10`) |
//! | `test_stage2_browser_discovery` | J | `browser_discovery_reaches_services` (the file: `image::item_44`) |
//! | `test_smoke` 18, 41 | J | `smoke_help` |
//! | 63 | A | `smoke_help_behind_another_init` |
//!
//! Elsewhere, for the scripts of the image are all there is to them: `test_puid_pgid_remap` is `image::item_29`,
//! `test_toplevel_chown` 33 and 34, `test_home_override_scripts` 119 is 32, `test_config_migration` 40,
//! `test_tini_compat_shim` 8, `test_immutable_install` 2, 3 and 38. Content of upstream's image without a part for us:
//! `test_license_file_present`, `test_dump_build_sha`, `test_tui_prebuilt_bundle`, `test_sqlite_runtime`.

mod container_restart;
mod dashboard;
mod gateway_run_supervised;
mod invocation;
mod preparation;
mod profile_gateway;
