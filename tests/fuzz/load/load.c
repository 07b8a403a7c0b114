// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Corrupted streams for the load side of hw/vfio/migration*.c
 *
 * This is linked to all of QEMU in place of system/main.c.  A VFIO device is
 * registered for migration, of which only the kernel's part is missing: its
 * ioctls are answered here.  Streams like those of the save side are made,
 * corrupted, and loaded.  See README.md.
 */
#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <linux/vfio.h>
#include "exec/address-spaces.h"
#include "hw/vfio/vfio-common.h"
#include "io/channel-buffer.h"
#include "migration/misc.h"
#include "migration/register.h"
#include "qapi/error.h"
#include "qemu-main.h"
#include "qemu/bswap.h"
#include "qemu/main-loop.h"
#include "qom/object.h"
#include "system/system.h"
#include "migration/migration.h"
#include "migration/qemu-file.h"

#define DEVICE_FD       1000000  /* no descriptor of this process */
#define CONFIG_BYTES    64
#define PACKETS         12
#define MULTIFD_CONFIG  1        /* VFIO_DEVICE_STATE_CONFIG_STATE */
#define PACKET_HEADER   12       /* version, index, flags */
#define PACKET_INDEX    4
#define KNOWN           3000     /* one in so many of what is known */

int (*qemu_main)(void);

static const SaveVMHandlers *handlers;
static enum vfio_device_mig_state device_state;
static uint64_t random_state;
static GThread *load_thread;
static bool load_should_quit;

/* splitmix64: each stream is a function of its number */
static uint64_t next_random(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static uint32_t below(uint32_t bound)
{
    return next_random() % bound;
}

static bool one_in(uint32_t n)
{
    return !below(n);
}

/* The kernel's part */

static int set_state(struct vfio_device_feature_mig_state *mig)
{
    /* A device may refuse, and QEMU has to go on from there */
    if (one_in(50)) {
        errno = EBUSY;
        return -1;
    }
    device_state = mig->device_state;
    mig->data_fd = -1;
    if (device_state == VFIO_DEVICE_STATE_RESUMING) {
        mig->data_fd = open(one_in(10) ? "/dev/full" : "/dev/null", O_WRONLY);
        assert(mig->data_fd >= 0);
    }
    return 0;
}

static int device_ioctl(unsigned long request, void *argument)
{
    struct vfio_device_feature *feature = argument;
    struct vfio_device_feature_migration *mig = (void *)feature->data;

    if (request == VFIO_DEVICE_RESET) {
        device_state = VFIO_DEVICE_STATE_RUNNING;
        return 0;
    }
    if (request == VFIO_DEVICE_FEATURE) {
        switch (feature->flags) {
        case VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION:
            mig->flags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P |
                         VFIO_MIGRATION_PRE_COPY;
            return 0;
        case VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE:
            return set_state((void *)feature->data);
        }
    }
    errno = ENOTTY;
    return -1;
}

int __real_ioctl(int fd, unsigned long request, void *argument);
int __wrap_ioctl(int fd, unsigned long request, void *argument);

int __wrap_ioctl(int fd, unsigned long request, void *argument)
{
    if (fd == DEVICE_FD) {
        return device_ioctl(request, argument);
    }
    return __real_ioctl(fd, request, argument);
}

/* QEMU's part: what is called, and what is taken from the migration core */

int __real_register_savevm_live(const char *name, uint32_t instance,
                                int version, const SaveVMHandlers *ops,
                                void *opaque);
int __wrap_register_savevm_live(const char *name, uint32_t instance,
                                int version, const SaveVMHandlers *ops,
                                void *opaque);

int __wrap_register_savevm_live(const char *name, uint32_t instance,
                                int version, const SaveVMHandlers *ops,
                                void *opaque)
{
    if (!strcmp(name, "vfio")) {
        handlers = ops;
    }
    return __real_register_savevm_live(name, instance, version, ops, opaque);
}

typedef struct LoadThread {
    MigrationLoadThread function;
    void *opaque;
} LoadThread;

static gpointer run_load_thread(gpointer opaque)
{
    g_autofree LoadThread *thread = opaque;
    Error *err = NULL;

    thread->function(thread->opaque, &load_should_quit, &err);
    error_free(err);
    return NULL;
}

void __wrap_qemu_loadvm_start_load_thread(MigrationLoadThread function,
                                          void *opaque);

void __wrap_qemu_loadvm_start_load_thread(MigrationLoadThread function,
                                          void *opaque)
{
    LoadThread *thread = g_new(LoadThread, 1);

    thread->function = function;
    thread->opaque = opaque;
    load_should_quit = false;
    load_thread = g_thread_new("load", run_load_thread, thread);
}

static Object *get_object(VFIODevice *vbasedev)
{
    return OBJECT(vbasedev->dev);
}

static int load_config(VFIODevice *vbasedev, QEMUFile *f)
{
    uint8_t config[CONFIG_BYTES];

    if (qemu_get_buffer(f, config, sizeof(config)) != sizeof(config)) {
        return -EINVAL;
    }
    return 0;
}

static VFIODeviceOps device_ops = {
    .vfio_get_object = get_object,
    .vfio_load_config = load_config,
};

static VFIODevice *new_device(void)
{
    static VFIOAddressSpace space = { .as = &address_space_memory };
    static VFIOContainerBase container = { .space = &space };
    VFIODevice *device = g_new0(VFIODevice, 1);

    device->dev = DEVICE(object_new("vfio-pci"));
    device->name = g_strdup("device");
    device->fd = DEVICE_FD;
    device->ops = &device_ops;
    device->bcontainer = &container;
    device->enable_migration = ON_OFF_AUTO_ON;
    vfio_migration_realize(device, &error_fatal);
    return device;
}

/* Streams */

static void put_be32(GByteArray *to, uint32_t value)
{
    value = cpu_to_be32(value);
    g_byte_array_append(to, (uint8_t *)&value, sizeof(value));
}

static void put_be64(GByteArray *to, uint64_t value)
{
    value = cpu_to_be64(value);
    g_byte_array_append(to, (uint8_t *)&value, sizeof(value));
}

static void put_random(GByteArray *to, uint32_t bytes)
{
    while (bytes--) {
        uint8_t byte = next_random();

        g_byte_array_append(to, &byte, 1);
    }
}

static void put_config(GByteArray *to)
{
    put_be64(to, VFIO_MIG_FLAG_DEV_CONFIG_STATE);
    put_random(to, CONFIG_BYTES);
    put_be64(to, VFIO_MIG_FLAG_END_OF_STATE);
}

/* As migration.c saves it: setup, then data, then the configuration */
static GByteArray *new_stream(void)
{
    GByteArray *stream = g_byte_array_new();
    uint32_t sections = below(6), chunks;

    put_be64(stream, VFIO_MIG_FLAG_DEV_SETUP_STATE);
    put_be64(stream, VFIO_MIG_FLAG_END_OF_STATE);
    while (sections--) {
        for (chunks = below(3); chunks; chunks--) {
            uint32_t bytes = below(300);

            put_be64(stream, VFIO_MIG_FLAG_DEV_DATA_STATE);
            put_be64(stream, bytes);
            put_random(stream, bytes);
        }
        if (one_in(4)) {
            put_be64(stream, VFIO_MIG_FLAG_DEV_INIT_DATA_SENT);
        } else {
            put_be64(stream, VFIO_MIG_FLAG_END_OF_STATE);
        }
    }
    put_config(stream);
    return stream;
}

static void put_packet(GPtrArray *packets, uint32_t index, uint32_t flags,
                       GByteArray *data)
{
    GByteArray *packet = g_byte_array_new();

    put_be32(packet, 0);
    put_be32(packet, index);
    put_be32(packet, flags);
    g_byte_array_append(packet, data->data, data->len);
    g_ptr_array_add(packets, packet);
}

/* As migration-multifd.c saves them; channels may change their order */
static GPtrArray *new_packets(void)
{
    GPtrArray *packets = g_ptr_array_new();
    uint32_t count = below(PACKETS), i;

    for (i = 0; i <= count; i++) {
        g_autoptr(GByteArray) data = g_byte_array_new();

        if (i == count) {
            put_config(data);
        } else {
            put_random(data, below(200));
        }
        put_packet(packets, i, i == count ? MULTIFD_CONFIG : 0, data);
    }
    for (i = 0; i < count && one_in(2); i++) {
        uint32_t a = below(count + 1), b = below(count + 1);

        void *other = packets->pdata[a];

        packets->pdata[a] = packets->pdata[b];
        packets->pdata[b] = other;
    }
    return packets;
}

static const uint64_t tags[] = {
    VFIO_MIG_FLAG_END_OF_STATE,
    VFIO_MIG_FLAG_DEV_CONFIG_STATE,
    VFIO_MIG_FLAG_DEV_SETUP_STATE,
    VFIO_MIG_FLAG_DEV_DATA_STATE,
    VFIO_MIG_FLAG_DEV_INIT_DATA_SENT,
    0, 1, 0x7fffffffffffffff, 0xffffffffffffffff, 0x100000000,
};

static void put_tag(GByteArray *data, uint32_t at)
{
    uint64_t tag = cpu_to_be64(tags[below(ARRAY_SIZE(tags))]);

    memcpy(data->data + at, &tag, MIN(sizeof(tag), data->len - at));
}

static void corrupt(GByteArray *data)
{
    g_autofree uint8_t *piece = NULL;
    uint32_t at, bytes;

    if (!data->len) {
        put_random(data, below(40));
        return;
    }
    at = below(data->len);
    /* What matters is mostly at a multiple of four bytes */
    if (one_in(2)) {
        at &= ~3;
    }
    bytes = 1 + below(data->len - at);
    switch (below(6)) {
    case 0:
        data->data[at] ^= 1 << below(8);
        break;
    case 1:
        data->data[at] = next_random();
        break;
    case 2:
        g_byte_array_set_size(data, at);
        break;
    case 3:
        g_byte_array_remove_range(data, at, bytes);
        break;
    case 4:
        piece = g_memdup2(data->data + at, bytes);
        g_byte_array_append(data, piece, bytes);
        break;
    case 5:
        put_tag(data, at);
        break;
    }
}

/* Index and flags of a packet, where its meaning is */
static void corrupt_packet(GByteArray *packet)
{
    static const uint32_t values[] = {
        0, 1, 2, 3, PACKETS, 4095, 0x7fffffff, 0xfffffffe, 0xffffffff,
    };
    uint32_t value = cpu_to_be32(values[below(ARRAY_SIZE(values))]);

    if (packet->len < PACKET_HEADER || one_in(2)) {
        corrupt(packet);
    } else {
        memcpy(packet->data + 4 * below(3), &value, sizeof(value));
    }
}

/*
 * Whether its index is so large that QEMU asks for gigabytes: what comes then
 * is known, so it is let through rarely
 */
static bool is_left_out(GByteArray *packet)
{
    uint32_t index;

    if (packet->len < PACKET_HEADER || one_in(KNOWN)) {
        return false;
    }
    index = ldl_be_p(packet->data + PACKET_INDEX);
    return index > 65536 && index != UINT32_MAX;
}

/* Loading */

static int load_stream(VFIODevice *device, GByteArray *stream)
{
    QIOChannelBuffer *channel = qio_channel_buffer_new(stream->len);
    QEMUFile *f;
    int ret = 0;

    memcpy(channel->data, stream->data, stream->len);
    channel->usage = stream->len;
    f = qemu_file_new_input(QIO_CHANNEL(channel));
    object_unref(OBJECT(channel));
    /* Each call is a section */
    while (!ret && !qemu_file_get_error(f)) {
        ret = handlers->load_state(f, device, 1);
    }
    qemu_fclose(f);
    return ret;
}

static void load_packets(VFIODevice *device, GPtrArray *packets)
{
    uint32_t i;

    handlers->switchover_start(device);
    bql_unlock();
    /* The thread may begin before the first packet, or behind the last */
    if (one_in(2)) {
        g_usleep(200);
    }
    for (i = 0; i < packets->len; i++) {
        GByteArray *packet = packets->pdata[i];
        Error *err = NULL;

        if (is_left_out(packet)) {
            continue;
        }
        /* QEMU's multifd channels have a buffer for each, too */
        if (!handlers->load_state_buffer(device, (char *)packet->data,
                                         packet->len, &err)) {
            error_free(err);
        }
        if (one_in(4)) {
            g_usleep(50);
        }
    }
    bql_lock();
}

static void load_once(VFIODevice *device)
{
    MigrationIncomingState *mis = migration_incoming_get_current();
    bool multifd = one_in(3);
    GByteArray *stream;
    GPtrArray *packets;
    Error *err = NULL;
    uint32_t i;

    device->migration_multifd_transfer =
        multifd ? ON_OFF_AUTO_ON : ON_OFF_AUTO_OFF;
    mis->switchover_ack_pending_num = below(3);
    if (handlers->load_setup(NULL, device, &err)) {
        error_free(err);
    } else {
        stream = new_stream();
        for (i = below(4); i; i--) {
            corrupt(stream);
        }
        load_stream(device, stream);
        g_byte_array_unref(stream);
        if (multifd) {
            packets = new_packets();
            for (i = below(4); i; i--) {
                corrupt_packet(packets->pdata[below(packets->len)]);
            }
            load_packets(device, packets);
            for (i = 0; i < packets->len; i++) {
                g_byte_array_unref(packets->pdata[i]);
            }
            g_ptr_array_unref(packets);
        }
    }
    handlers->load_cleanup(device);
    if (load_thread) {
        bql_unlock();
        g_thread_join(load_thread);
        bql_lock();
        load_thread = NULL;
    }
    /* As qemu_cleanup() or the next run does */
    device->migration->device_state = device_state = VFIO_DEVICE_STATE_STOP;
}

static int open_descriptors(void)
{
    GDir *dir = g_dir_open("/proc/self/fd", 0, NULL);
    int count = 0;

    while (g_dir_read_name(dir)) {
        count++;
    }
    g_dir_close(dir);
    return count;
}

/* load FIRST COUNT: prints each number before its stream is loaded */
int main(int argc, char **argv)
{
    static char *options[] = {
        (char *)"qemu-system-x86_64", (char *)"-nodefaults",
        (char *)"-machine", (char *)"none", (char *)"-display", (char *)"none",
        (char *)"-global", (char *)"migration.x-multifd=on",
        (char *)"-global", (char *)"migration.x-return-path=on",
        (char *)"-global", (char *)"migration.x-switchover-ack=on", NULL,
    };
    uint64_t number, first, count;
    VFIODevice *device;
    int descriptors;

    if (argc < 3) {
        return 2;
    }
    first = strtoull(argv[1], NULL, 0);
    count = strtoull(argv[2], NULL, 0);
    qemu_init(ARRAY_SIZE(options) - 1, options);
    device = new_device();
    device_state = VFIO_DEVICE_STATE_STOP;
    device->migration->device_state = device_state;
    descriptors = open_descriptors();
    for (number = first; number < first + count; number++) {
        printf("%" PRIu64 "\n", number);
        fflush(stdout);
        random_state = number;
        load_once(device);
        if (open_descriptors() != descriptors) {
            printf("a descriptor was left open\n");
            return 1;
        }
    }
    printf("end\n");
    return 0;
}
