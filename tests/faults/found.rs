//! Runs that failed once, each with what was wrong then. They come first in every campaign.

pub const FOUND: &[&str] = &[
    // Whoever waited to be let in when accept(2) failed waited for ever: a listener gives no second edge for them.
    "start cgroup EMFILE 1 main accept4 socket:[#]+w!",
    "stop-hostile keeper ENFILE 1 main accept4 socket:[#]+w!",
    // The caller lost its connection, and the log said nothing.
    "freeze keeper ENOMEM 1 main epoll_ctl anon_inode:[eventpoll],1",
    // Definitions that could not be read for want of a descriptor: a running service was not adopted, but ended.
    "adopt cgroup EMFILE 1 definition openat /etc/hermes-sup/services/one.toml",
    "adopt keeper ENOMEM 1 definition openat /etc",
    "boot-again keeper EMFILE 1 definition openat /etc/hermes-sup/services/.",
    // What an upgrade had become did not start, and ended with the services still running.
    "upgrade cgroup EMFILE 1 main open /sys/fs/cgroup/hermes-sup.#",
    "upgrade keeper ENOMEM 1 main openat /dev/shm/hermes-sup-#/keepers/.",
    // What a keeper had to say was lost where its socket did not take it, and waited for for ever.
    "start keeper ENOBUFS 1 keeper sendmsg socket:[#]+w!",
    "freeze keeper EAGAIN 1 keeper sendmsg socket:[#]+w!",
    // A keeper that the kernel had no memory to wait for ended, and its tree with it.
    "freeze keeper ENOMEM 1 keeper ppoll ",
    // A keeper that could not begin did not say why.
    "rotate keeper ENOMEM 1 child signalfd4 ",
    // A keeper that could not have a session went on as a second fork server, and took orders from the first.
    "crash keeper EPERM 1 child setsid ",
    // Nobody ever read the output of a service that could not be watched at once.
    "rotate keeper ENOMEM 1 log-pump epoll_ctl anon_inode:[eventpoll],1",
    // A thread could not be had, and the disk was said not to answer.
    "reload keeper ENOMEM 1 main clone ",
    // Directories that were made stayed where what followed failed.
    "start cgroup EMFILE 1 main pidfd_open ",
    "boot-again cgroup ENFILE 1 main open /sys/fs/cgroup/hermes-sup.#.probe.#.#.#",
    // The wait of a probe was interrupted, and taken for its end: its process and its cgroup stayed.
    "upgrade cgroup EINTR 1 main ppoll ",
    // A wait of a probe failed, and what it had waited for kept the cgroup.
    "boot cgroup ENOMEM 1 main ppoll ",
    // The go of a child was interrupted, and taken for its death.
    "restart cgroup EINTR 1 main write pipe:[#]+w",
];
