/* What the kernel asks for the namespaces of an instance and nothing more: the floor under every cold start.
 *
 * Runs as: root, once for each measurement.
 * Reads from strangers: nothing.
 * One clone(2) with every kind of namespace that an instance has, execve(2) of /usr/bin/true in it, and waitpid(2).
 * No mount, no cgroup, no filter, no uid: what is above this line is what a sandbox costs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    const unsigned long flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
                                CLONE_NEWCGROUP | SIGCHLD;
    char *const arguments[] = {"true", NULL};
    char *const environment[] = {NULL};
    int status;

    /* Without a stack of its own the child goes on in a copy of this one, as after fork(2): clone(2). */
    long child = syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
    if (child == 0) {
        execve("/usr/bin/true", arguments, environment);
        _exit(127);
    }
    if (child < 0) {
        fprintf(stderr, "clone: %s\n", strerror(errno));
        return 1;
    }
    if (waitpid((pid_t)child, &status, 0) < 0 || !WIFEXITED(status))
        return 1;
    return WEXITSTATUS(status);
}
