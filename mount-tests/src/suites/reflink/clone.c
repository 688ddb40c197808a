/* clone SOURCE TARGET [OFFSET LENGTH TO]: FICLONE or, with numbers, FICLONERANGE. In the
   environment, TRUNC empties the target first, and THREAD asks from another thread than the first.
   Prints "ok" or the error's number. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <linux/fs.h>

static int source, target, number;
static struct file_clone_range range, *part;

static void *clone_it(void *unused)
{
    int failed = part ? ioctl(target, FICLONERANGE, part) : ioctl(target, FICLONE, source);
    number = failed ? errno : 0;
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t thread;

    source = open(argv[1], O_RDONLY);
    target = open(argv[2], O_WRONLY | O_CREAT | (getenv("TRUNC") ? O_TRUNC : 0), 0644);
    if (source < 0 || target < 0)
        return 2;
    if (argc > 5) {
        part = &range;
        range.src_fd = source;
        range.src_offset = strtoull(argv[3], NULL, 10);
        range.src_length = strtoull(argv[4], NULL, 10);
        range.dest_offset = strtoull(argv[5], NULL, 10);
    }
    if (!getenv("THREAD"))
        clone_it(NULL);
    else if (pthread_create(&thread, NULL, clone_it, NULL) || pthread_join(thread, NULL))
        return 2;
    if (number)
        printf("%d\n", number);
    else
        puts("ok");
    return 0;
}
