# nomad job run docker/deploy/hermes.nomad.hcl
# The host volume "hermes" has to be in the configuration of the client that runs it.
job "hermes" {
  type = "service"

  group "gateways" {
    count = 1

    volume "data" {
      type            = "host"
      source          = "hermes"
      access_mode     = "single-node-writer"
      attachment_mode = "file-system"
    }

    task "hermes" {
      driver = "docker"

      # More than the stop budget. The client's max_kill_timeout has to allow it.
      kill_timeout = "90s"
      kill_signal  = "SIGTERM"

      config {
        image = "hermes-sup:latest"
        args  = ["gateway", "run"]
        # init must stay off: hermes-sup is the init.
        init = false
      }

      env {
        HERMES_SUP_STOP_BUDGET = "85s"
      }

      volume_mount {
        volume      = "data"
        destination = "/opt/data"
      }

      resources {
        cpu    = 1000
        memory = 2048
      }

      service {
        name     = "hermes"
        provider = "nomad"

        # Nomad runs script checks in the task.
        check {
          type     = "script"
          command  = "/usr/local/bin/hermes-sup"
          args     = ["healthcheck"]
          interval = "30s"
          timeout  = "10s"
        }
      }
    }
  }
}
