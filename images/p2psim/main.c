// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * p2psim: a simulated PCI device with VFIO migration
 *
 * The VFIO core wants a struct device with a driver and an IOMMU group, and
 * QEMU wants to find them in sysfs.  A bus of our own gives both.
 */
#include <linux/device.h>
#include <linux/err.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "p2psim.h"

/**
 * struct p2psim_slot - the device on the bus, parent of the VFIO device
 * @dev: /sys/devices/p2psim/NAME
 * @config: valid while the driver probes
 * @log: as in struct p2psim_device
 * @error: why there is no device, which the driver core does not pass on
 */
struct p2psim_slot {
	struct device dev;
	const struct p2psim_config *config;
	struct p2psim_log *log;
	int error;
};

static struct device *p2psim_root;

/* With IOMMUFD, QEMU takes an IOMMU for an emulated one if the bus is "mdev" */
static bool as_mdev;
module_param_named(mdev, as_mdev, bool, 0444);
MODULE_PARM_DESC(mdev, "call the devices' bus mdev, which then cannot be loaded");

static const struct bus_type p2psim_buses[] = {
	{ .name = "p2psim" },
	{ .name = "mdev" },
};

static int p2psim_probe(struct device *dev)
{
	struct p2psim_slot *slot = container_of(dev, struct p2psim_slot, dev);
	struct p2psim_device *sim;

	sim = p2psim_device_create(dev, slot->config, slot->log);
	if (IS_ERR(sim)) {
		slot->error = PTR_ERR(sim);
		return slot->error;
	}
	dev_set_drvdata(dev, sim);
	return 0;
}

static int p2psim_remove(struct device *dev)
{
	p2psim_device_destroy(dev_get_drvdata(dev));
	return 0;
}

static struct device_driver p2psim_driver = {
	.name = "p2psim",
	.owner = THIS_MODULE,
	.probe = p2psim_probe,
	.remove = p2psim_remove,
	/* p2psim_bus_add() looks at what the probe has left behind */
	.probe_type = PROBE_FORCE_SYNCHRONOUS,
	/* Only configfs decides when a device goes */
	.suppress_bind_attrs = true,
};

static void p2psim_slot_release(struct device *dev)
{
	kfree(container_of(dev, struct p2psim_slot, dev));
}

/* Returns with the device bound, or not at all */
struct device *p2psim_bus_add(const char *name,
			      const struct p2psim_config *config,
			      struct p2psim_log *log)
{
	struct p2psim_slot *slot = kzalloc(sizeof(*slot), GFP_KERNEL);
	int ret;

	if (!slot)
		return ERR_PTR(-ENOMEM);
	device_initialize(&slot->dev);
	slot->dev.bus = p2psim_driver.bus;
	slot->dev.parent = p2psim_root;
	slot->dev.release = p2psim_slot_release;
	slot->config = config;
	slot->log = log;
	ret = dev_set_name(&slot->dev, "%s", name);
	if (ret)
		goto err_put;
	ret = device_add(&slot->dev);
	if (ret)
		goto err_put;
	if (!dev_get_drvdata(&slot->dev)) {
		ret = slot->error ?: -ENODEV;
		device_unregister(&slot->dev);
		return ERR_PTR(ret);
	}
	return &slot->dev;

err_put:
	put_device(&slot->dev);
	return ERR_PTR(ret);
}

/* Returns -EBUSY, and changes nothing, while a user holds the device */
int p2psim_bus_remove(struct device *dev)
{
	int ret = p2psim_device_retire(dev_get_drvdata(dev));

	if (!ret)
		device_unregister(dev);
	return ret;
}

static int __init p2psim_init(void)
{
	int ret;

	p2psim_driver.bus = p2psim_buses + as_mdev;
	p2psim_root = root_device_register("p2psim");
	if (IS_ERR(p2psim_root))
		return PTR_ERR(p2psim_root);
	ret = bus_register(p2psim_driver.bus);
	if (ret)
		goto err_root;
	ret = driver_register(&p2psim_driver);
	if (ret)
		goto err_bus;
	ret = p2psim_log_init();
	if (ret)
		goto err_driver;
	ret = p2psim_configfs_init();
	if (ret)
		goto err_log;
	return 0;

err_log:
	p2psim_log_exit();
err_driver:
	driver_unregister(&p2psim_driver);
err_bus:
	bus_unregister(p2psim_driver.bus);
err_root:
	root_device_unregister(p2psim_root);
	return ret;
}

static void __exit p2psim_exit(void)
{
	p2psim_configfs_exit();
	p2psim_log_exit();
	driver_unregister(&p2psim_driver);
	bus_unregister(p2psim_driver.bus);
	root_device_unregister(p2psim_root);
}

module_init(p2psim_init);
module_exit(p2psim_exit);

MODULE_DESCRIPTION("Simulated PCI device with VFIO migration");
MODULE_LICENSE("GPL");
