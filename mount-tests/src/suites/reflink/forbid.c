/* forbid CALL ERRNO PROGRAM [ARG...]: runs a program for which a system call fails. CALL -1 forbids
   nothing, and has a listener of seccomp(2) on the program instead. */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

int main(int argc, char **argv)
{
    int call = argc > 3 ? atoi(argv[1]) : 0;
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (argc > 3 ? atoi(argv[2]) : 0)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
    long listener;

    if (argc < 4 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return 2;
    listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                       call == -1 ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0, &program);
    if (listener < 0 || (call == -1 && fcntl(listener, F_SETFD, 0)))
        return 2;
    execvp(argv[3], argv + 3);
    return errno;
}
